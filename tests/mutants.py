"""Mutation testing: how many small faults, planted one at a time, the tests of a module notice.

`python tests/mutants.py [MODULE ...]` runs mutmut on each module under the fast tests that are about it,
prints the change that each survivor makes and a table, and exits 1 where fewer than 85 % are killed. What was
decided stays in `.mutants/`: a run that was stopped goes on; survivors and changed functions are asked again.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).parents[1]
STATE = ROOT / ".mutants"
COPIES = STATE / "mutants"  # as mutmut calls it
LOG = STATE / "log"
ENOUGH = 0.85  # share of killed mutants
KILLED = ("killed", "timeout")
LIVED = (0, 5, 33)  # pytest's exit codes for passed and for no test, and mutmut's own for no test

# Module -> the tests that are about it, in tests/: those that are fast.
TESTS: dict[str, tuple[str, ...]] = {
    "bench/stats.py": ("test_bench_stats.py",),
    "bench/report/selection.py": ("test_report_selection.py", "test_report_text.py"),
    "bench/report/tables/columns.py": ("test_report_columns.py", "test_report_tables.py"),
    "bench/report/tables/pareto.py": ("test_report_ratios.py", "test_report_tables.py"),
    "bench/report/tables/runs.py": ("test_report_tables.py", "test_report_ratios.py"),
    "bench/store/derived.py": ("test_derived.py",),
    "bench/store/git.py": ("test_store_git.py",),
    "bench/store/images.py": ("test_store_images.py",),
    "bench/store/keys.py": ("test_store_records.py", "test_scrub.py"),
    "bench/store/places.py": ("test_store_publishing.py",),
    "bench/store/publishing.py": ("test_store_publishing.py",),
    "bench/store/records.py": ("test_store_records.py", "test_bench_store.py"),
    "bench/store/tensors.py": ("test_store_tensors.py",),
    "bench/store/validation.py": ("test_store_records.py", "test_bench_store.py"),
    "dqar/plan.py": ("test_rules.py", "test_plan.py::test_published_reuse_ratio"),
    "dqar/core/entropy.py": (
        "test_computers.py",
        "test_entropy.py::test_low_precision_is_measured_in_float32",
    ),
    "dqar/core/gate_config.py": ("test_gate.py",),
    "dqar/core/quantization.py": ("test_quantization.py", "test_mixed_precision.py::test_bad_budget"),
    "dqar/core/reasons.py": ("test_gate.py", "test_rules.py"),
    "dqar/core/reuse_gate.py": ("test_gate.py", "test_rules.py"),
    "dqar/core/snr.py": ("test_computers.py",),
    "dqar/core/solver_sensitivity.py": (
        "test_computers.py",
        "test_output_correction.py::test_the_response_is_what_the_solver_carries",
    ),
}
# Tests of the records that are committed, which are not copied.
SKIPPED = (
    "test_derived.py::test_published_records_are_consistent",
    "test_bench_store.py::test_the_committed_records_are_sound",
)
# The fork server imports the tests once; each mutant is a fork of it, in which nothing was called before.
SETTINGS = """
[tool.mutmut]
source_paths = {modules}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:timeout", "-n0", {skipped}]
use_git_change_detection = false
on_dependency_change = "ignore"
track_dependencies = false
process_isolation = "forkserver"
timeout_constant = 3.0
"""


def prepare(modules: Sequence[str]) -> None:
    """Put settings, the modules and a copy of the rest where mutmut runs."""
    for name in ("bench", "dqar", "tests"):
        shutil.copytree(ROOT / name, COPIES / name, dirs_exist_ok=True, copy_function=_copied)
    tests = dict.fromkeys(f"tests/{name}" for module in modules for name in TESTS[module])
    skipped = ", ".join(f'"--deselect=tests/{name}"' for name in SKIPPED)
    settings = SETTINGS.format(modules=json.dumps(modules), tests=json.dumps([*tests]), skipped=skipped)
    (STATE / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + settings)
    for module in modules:
        (STATE / module).parent.mkdir(parents=True, exist_ok=True)
        (STATE / module).write_text(undecorated((ROOT / module).read_text()))


def _copied(source: str, target: str) -> None:
    """Sources are copied, so that a change of them while this runs changes nothing; models are linked to."""
    Path(target).unlink(missing_ok=True)
    shutil.copy2(source, target) if source.endswith(".py") else Path(target).symlink_to(source)


def undecorated(source: str) -> str:
    """The same module with `@wrap def f` as `def f_undecorated` and `f = wrap(f_undecorated)`: mutmut passes
    over functions that have decorators."""
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    functions = [node for body in bodies for node in body if isinstance(node, ast.FunctionDef)]
    for function in sorted(functions, key=lambda node: -node.lineno):
        decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
        if not decorators or decorators in (["staticmethod"], ["classmethod"]):
            continue
        name = f"{function.name}_undecorated"
        wrapped = name
        for decorator in reversed(decorators):
            wrapped = f"{decorator}({wrapped})"
        lines.insert(function.end_lineno or 0, f"{' ' * function.col_offset}{function.name} = {wrapped}\n")
        first = function.lineno - 1
        lines[first] = lines[first].replace(f"def {function.name}(", f"def {name}(", 1)
        del lines[function.decorator_list[0].lineno - 1 : first]
    return "".join(lines)


def mutate(modules: Sequence[str], children: int) -> None:
    """Run what was not decided before, and what no test noticed then: the tests may have changed."""
    prepare(modules)
    (COPIES / "mutmut-stats.json").unlink(missing_ok=True)  # which tests reach which function
    for decided in (COPIES / f"{module}.meta" for module in modules):
        if decided.exists():
            content = json.loads(decided.read_text())
            codes = content["exit_code_by_key"].items()
            content["exit_code_by_key"] = {name: None if code in LIVED else code for name, code in codes}
            decided.write_text(json.dumps(content))
    with LOG.open("w") as stream:
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children)]
        done = subprocess.run(command, cwd=STATE, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"mutmut failed; see {LOG}")


def outcomes(module: str) -> tuple[Counter[str], list[str]]:
    """How many mutants of a module came to what, and the change of each that no test noticed."""
    with chdir(STATE):
        decided = SourceFileMutationData(path=Path(module))
        decided.load()
        statuses = {name: status_by_exit_code[code] for name, code in decided.exit_code_by_key.items()}
        alive = [name for name, outcome in statuses.items() if outcome not in KILLED]
        changes = [
            f"# {name}: {statuses[name]}\n{get_diff_for_mutant(name, path=module)}\n" for name in alive
        ]
    return Counter(statuses.values()), changes


def _row(module: str, statuses: Counter[str]) -> str:
    killed, late = (statuses[outcome] for outcome in KILLED)
    alive = statuses.total() - killed - late
    return f"{module:<34} {statuses.total():>8} {killed:>8} {alive:>9} {late:>8} {_share(statuses):>6.1%}\n"


def _share(statuses: Counter[str]) -> float:
    return sum(statuses[outcome] for outcome in KILLED) / max(statuses.total(), 1)


def main() -> int:
    """Mutate the modules asked for, or all; print survivors and totals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(TESTS))
    parser.add_argument("--children", type=int, default=1, help="processes that run mutants (default: 1)")
    options = parser.parse_args()
    if unknown := set(options.modules) - set(TESTS):
        parser.error(f"MODULE: {', '.join(sorted(unknown))} not known; allowed: {', '.join(TESTS)}")
    modules = options.modules or [*TESTS]
    mutate(modules, options.children)
    table = f"{'module':<34} {'mutants':>8} {'killed':>8} {'survived':>9} {'timeout':>8} {'%':>6}\n"
    everything: Counter[str] = Counter()
    for module in modules:
        statuses, survivors = outcomes(module)
        sys.stdout.writelines(survivors)
        table += _row(module, statuses)
        everything += statuses
    sys.stdout.write(table + _row("all", everything))
    return int(_share(everything) < ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
