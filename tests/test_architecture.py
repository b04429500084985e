"""The order of the directories, read from the imports: nothing imports what stands below it, in no circle."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import bench

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("bench", "dqar")
    for path in (ROOT / package).rglob("*.py")
}
# From the listing in the docstring of `bench`; the first line names modules.
LISTED = re.findall(r"^    ((?:\w+, )*\w+)  ", bench.__doc__ or "", re.MULTILINE)
ORDER = [["bench"], *(listed.split(", ") for listed in LISTED), ["__main__"]]


def imported(name: str, path: Path, deep: bool) -> Iterator[str]:
    """The modules of this project that a module imports; those inside functions only if `deep`."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), deep):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            below = [f"{source}.{alias.name}" for alias in node.names]
            yield from (each for each in (source, *below) if each in FILES)


def statements(node: ast.AST, deep: bool) -> Iterator[ast.AST]:
    """The nodes that run on import; with `deep` those of functions and of `if TYPE_CHECKING` too."""
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if deep or not (later or typing_only):
            yield child
            yield from statements(child, deep)


@functools.cache
def graph(deep: bool) -> dict[str, set[str]]:
    """Each module with those that it imports."""
    return {name: {*imported(name, path, deep)} - {name} for name, path in FILES.items()}


def place(name: str) -> int:
    """The position of a module's directory in the order; ValueError for one that the docstring lacks."""
    directory = name.split(".")[1] if "." in name else name
    return next(i for i, names in enumerate(ORDER) if directory in names)


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """What imports itself by way of others: what is left when ends are cut away again and again."""
    left = dict(edges)
    while ends := {name for name, to in left.items() if not to & left.keys()}:
        left = {name: to for name, to in left.items() if name not in ends}
    while starts := left.keys() - {each for to in left.values() for each in to}:
        left = {name: to for name, to in left.items() if name not in starts}
    return [[name, *sorted(to & left.keys())] for name, to in sorted(left.items())]


def test_directories_import_only_from_those_above() -> None:
    """Every directory of bench/ is listed in its docstring, and its imports, those in functions included,
    lead upwards in that list."""
    wrong = [
        (name, each)
        for name, found in graph(deep=True).items()
        if name.startswith("bench")
        for each in found
        if each.startswith("bench.") and place(each) > place(name)
    ]
    assert not wrong
    assert {path.name for path in (ROOT / "bench").iterdir() if (path / "__init__.py").exists()} <= {
        name for names in ORDER for name in names
    }


def test_the_runtime_never_imports_the_harness() -> None:
    """`dqar` works without `bench`."""
    imports = {name: each for name, each in graph(deep=True).items() if name.startswith("dqar")}
    assert imports
    assert not [(name, sorted(each)) for name, each in imports.items() if any(e[:5] == "bench" for e in each)]


def test_modules_import_in_no_circle() -> None:
    """No module needs itself to be imported, nor does one inside a function hide such a need."""
    for deep in (False, True):
        edges = graph(deep)
        # That a package's file imports its own modules is no circle: they do not use its names.
        inner = {name: {e for e in to if not name.startswith(e + ".")} for name, to in edges.items()}
        assert not circles(inner), f"imports in functions counted: {deep}"


def test_a_circle_is_found() -> None:
    """The search sees a circle of two and one of three, and none in a chain."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"], ["b", "a"]]
    assert [ring[0] for ring in circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})] == ["a", "b", "c"]
