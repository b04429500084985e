"""Public functions document what they take, return and raise: read from the sources, nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Directories whose own files (not those of directories in them) hold the rule; a constructor's arguments are
# documented by its class. bench/regression/benchmarks is none of them: asv hashes a benchmark's source, its
# docstring included, and drops stored results of another hash.
HELD = [
    "bench",
    "bench/cli",
    "bench/embedded",
    "bench/embedded/text_to_image",
    "bench/machine",
    "bench/measure",
    "bench/methods",
    "bench/pipeline",
    "bench/regression",
    "bench/report",
    "bench/report/plots",
    "bench/report/tables",
    "bench/report/text",
    "bench/run",
    "bench/spec",
    "bench/store",
    "bench/studies",
    "bench/studies/calibrate",
    "bench/studies/families",
    "bench/studies/generality",
    "bench/studies/gpu_check",
    "bench/studies/policy",
    "bench/studies/prompt_length",
    "bench/studies/scaling",
    "bench/studies/signals",
    "bench/studies/timesteps",
    "bench/studies/tune",
    "dqar",
    "dqar/cache",
    "dqar/core",
    "dqar/evaluation",
    "dqar/integration",
    "dqar/policy",
    "dqar/training",
    "dqar/utils",
]
EXEMPT = {"property", "cached_property", "setter", "computed_field", "overload", "command", "callback"}
NOTHING = {"None", "NoReturn", "Never", "Iterator[None]", "Generator[None]", "AsyncIterator[None]"}
SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Attributes|Examples?|Note|References?):$", re.MULTILINE)
ENTRY = re.compile(r"^    ((?:\*{0,2}\w+, )*\*{0,2}\w+): \S", re.MULTILINE)

PRIVATE = re.compile(r"_(?!_)")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Public:
    """A public function or method and the class that defines it, if any."""

    node: Function
    owner: ast.ClassDef | None
    file: str

    @property
    def where(self) -> str:
        """Its file, line and qualified name."""
        prefix = f"{self.owner.name}." if self.owner else ""
        return f"{self.file}:{self.node.lineno}: {prefix}{self.node.name}"


def names_of(decorators: list[ast.expr]) -> set[str]:
    """The last name of each decorator: `command` of `@app.command("x")`."""
    bare = [each.func if isinstance(each, ast.Call) else each for each in decorators]
    return {each.attr if isinstance(each, ast.Attribute) else ast.unparse(each) for each in bare}


def public(tree: ast.Module, file: str) -> Iterator[Public]:
    """The functions of a module and the methods of its classes that the rule is about."""
    scopes: list[tuple[ast.ClassDef | None, list[ast.stmt]]] = [(None, tree.body)]
    while scopes:
        owner, body = scopes.pop()
        for node in body:
            if isinstance(node, ast.If | ast.Try):
                scopes.append((owner, [*node.body, *node.orelse]))
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                scopes.append((node, node.body))
            elif isinstance(node, Function) and is_public(node, owner) and not exempt(node):
                yield Public(node, owner, file)


def is_public(node: Function, owner: ast.ClassDef | None) -> bool:
    """Whether users call a function by its name, or as the constructor of its class."""
    return not node.name.startswith("_") or (owner is not None and node.name == "__init__")


def exempt(node: Function) -> bool:
    """Whether a decorator makes its function a property, a command of the command line or an overload."""
    return bool(names_of(node.decorator_list) & EXEMPT)


def arguments(each: Public) -> list[str]:
    """The names of what a function takes, but for self, cls and those that start with an underscore."""
    taken = each.node.args
    optional = [arg for arg in (taken.vararg, taken.kwarg) if arg]
    names = [arg.arg for arg in (*taken.posonlyargs, *taken.args)]
    if each.owner and "staticmethod" not in names_of(each.node.decorator_list):
        names = names[1:]
    names += [arg.arg for arg in (*taken.kwonlyargs, *optional)]
    return [name for name in names if not name.startswith("_")]


def raises(node: ast.AST) -> bool:
    """Whether a function's own body raises; passing on what was caught (`raise` alone) does not count."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Raise) and child.exc:
            return True
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef) and raises(child):
            return True
    return False


def sections(docstring: str) -> dict[str, str]:
    """The text of each section of a Google-style docstring, by its heading."""
    _, *parts = SECTION.split(docstring)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def undocumented(each: Public) -> list[str]:
    """What the docstring of a function lacks; a constructor's is that of its class."""
    documented = each.owner if each.owner and each.node.name == "__init__" else each.node
    given = sections(ast.get_docstring(documented) or "")
    listed = ", ".join(ENTRY.findall(given.get("Args", "")))
    entries = {name.lstrip("*") for name in listed.split(", ") if name}
    lacks = [f"Args: {name}" for name in arguments(each) if name not in entries]
    lacks += [f"Args: {name} is no argument" for name in sorted(entries - {*arguments(each)})]
    returned = ast.unparse(each.node.returns) if each.node.returns else "None"
    if returned not in NOTHING and not given.keys() & {"Returns", "Yields"}:
        lacks.append("Returns")
    if raises(each.node) and "Raises" not in given:
        lacks.append("Raises")
    return lacks


@cache
def classes(package: str) -> dict[str, list[tuple[ast.ClassDef, str]]]:
    """Every class of a package by name."""
    by_name: dict[str, list[tuple[ast.ClassDef, str]]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                by_name.setdefault(node.name, []).append((node, str(path)))
    return by_name


def inherits_docstring(each: Public) -> bool:
    """Whether a method overrides one whose docstring, in a base class of the same package, is complete."""
    waiting, seen = [each.owner] if each.owner else [], set[str]()
    while waiting:
        bases = [ast.unparse(base).split("[")[0].split(".")[-1] for base in waiting.pop().bases]
        names = {*bases} - seen
        seen |= names
        for base, file in (one for name in names for one in classes(each.file.split("/")[0]).get(name, [])):
            waiting.append(base)
            for node in base.body:
                if isinstance(node, Function) and node.name == each.node.name:
                    return not undocumented(Public(node, base, file))
    return False


@pytest.mark.parametrize("directory", HELD)
def test_public_functions_document_what_they_take_return_and_raise(directory: str) -> None:
    """No public function of a held directory lacks an argument, `Returns:` or `Raises:` in its docstring."""
    paths = [path for path in sorted((ROOT / directory).glob("*.py")) if not PRIVATE.match(path.name)]
    assert paths, f"{directory}: no such directory; drop it from HELD"
    lacking = [
        f"{each.where}: {', '.join(lacks)}"
        for path in paths
        for each in public(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix())
        if (lacks := undocumented(each)) and not inherits_docstring(each)
    ]
    assert not lacking, "\n" + "\n".join(lacking)


@pytest.mark.parametrize(
    ("source", "lacks"),
    [
        ("def f(a, *b, c=1, **d) -> int: ...", ["Args: a", "Args: c", "Args: b", "Args: d", "Returns"]),
        ('def f(a):\n    """F.\n\n    Args:\n        a: In m.\n    """', []),
        ('def f(a, b):\n    """F.\n\n    Args:\n        a, b: In m.\n    """', []),
        ('def f(a):\n    """F.\n\n    Args:\n        a:\n    """', ["Args: a"]),
        ('def f():\n    """F.\n\n    Args:\n        gone: In m.\n    """', ["Args: gone is no argument"]),
        ('def f() -> int:\n    """F.\n\n    Returns:\n        In m.\n    """', []),
        ('def f() -> Iterator[int]:\n    """F.\n\n    Yields:\n        In m.\n    """', []),
        ("def f() -> None:\n    if x:\n        raise ValueError(1)", ["Raises"]),
        ("def f() -> None:\n    try:\n        x()\n    except ValueError:\n        raise", []),
        ("def f() -> None:\n    def g(a):\n        raise ValueError(a)", []),
        ("class C:\n    def f(self, a): ...", ["Args: a"]),
        ("class C:\n    def __init__(self, a): ...", ["Args: a"]),
        ('class C:\n    """C.\n\n    Args:\n        a: In m.\n    """\n    def __init__(self, a): ...', []),
        ("class C:\n    @staticmethod\n    def f(a): ...", ["Args: a"]),
    ],
)
def test_what_a_docstring_lacks_is_found(source: str, lacks: list[str]) -> None:
    """The check sees each kind of argument, a return, a raise of the body itself, and names that are gone."""
    [each] = public(ast.parse(source), "dqar/x.py")
    assert undocumented(each) == lacks


@pytest.mark.parametrize(
    "source",
    [
        "def _f(a) -> int: ...",
        "class _C:\n    def f(self, a) -> int: ...",
        "class C:\n    @property\n    def f(self) -> int: ...",
        "@app.command('x')\ndef f(a) -> int: ...",
        "@overload\ndef f(a: int) -> int: ...",
    ],
)
def test_what_is_exempt_is_passed_over(source: str) -> None:
    """Private names, properties, commands and overloads need no sections."""
    assert not [*public(ast.parse(source), "dqar/x.py")]


def test_an_override_inherits_only_a_complete_docstring() -> None:
    """A method needs no sections where its base, found by name in the package, has them."""
    good, bad = (
        ast.parse(f"class Base{n}:\n    def f(self, a):\n        {docstring!r}\n").body[0]
        for n, docstring in enumerate(("F.\n\nArgs:\n    a: In m.", "F."))
    )
    assert isinstance(good, ast.ClassDef) and isinstance(bad, ast.ClassDef)
    known = classes("dqar") | {"Base0": [(good, "")], "Base1": [(bad, "")]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(globals(), "classes", lambda _: known)
        for base, inherits in (("Base0", True), ("Base1", False), ("Nowhere", False)):
            [each] = public(ast.parse(f"class C({base}):\n    def f(self, a): ..."), "dqar/x.py")
            assert inherits_docstring(each) is inherits
