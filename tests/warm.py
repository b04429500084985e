"""Processes that start warm: forks of the tests' own process in place of new interpreters.

A new process needs 7 to 12 CPU seconds to import torch and diffusers. A fork of this one has them already. It
is a real process otherwise: with its own group, pipes, environment, signals and exit code. What only a new
interpreter can show (that imports work, how much memory it takes, how the allocator is set) stays with
tests that start one.
"""

from __future__ import annotations

import faulthandler
import gc
import inspect
import logging
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

OWN = ("bench", "dqar")
MODULES = ("bench", "bench.run.worker", "bench.measure.memory")
SCRIPTS = ("every_command.py", "faulty_worker.py", "light_driver.py", "light_worker.py")  # of the tests
PIPES = (("p2cread", "p2cwrite"), ("c2pread", "c2pwrite"), ("errread", "errwrite"))  # as Popen names them
_SIGNATURE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


def preload() -> None:
    """Import here what the forks would otherwise import one by one."""
    import bench.cli.main
    import bench.measure.memory
    import bench.measure.quality
    import bench.measure.timing
    import bench.pipeline.session
    import bench.report.suite_report
    import bench.run.runner
    import bench.run.worker  # noqa: F401


class WarmPopen(subprocess.Popen[Any]):
    """`subprocess.Popen` that forks where the command is Python with one of MODULES or SCRIPTS."""

    def _execute_child(self, *arguments: Any) -> None:
        given = _SIGNATURE.bind(self, *arguments).arguments
        command = [os.fsdecode(part) for part in given["args"]] if not given["shell"] else []
        if not _is_warm(command):
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(command[1:], given)
        self._child_created = True
        self._close_pipe_fds(*(given[name] for pair in PIPES for name in pair))  # type: ignore[attr-defined]


def _is_warm(command: list[str]) -> bool:
    if len(command) < 2 or command[0] != sys.executable:
        return False
    return (command[1:2] == ["-m"] and command[2] in MODULES) or Path(command[1]).name in SCRIPTS


def _become(command: list[str], given: dict[str, Any]) -> NoReturn:
    """In the fork: be what the command would be. Never return into the tests."""
    code = 1
    try:
        gc.freeze()  # what the parent left behind is not this process's to finalise
        faulthandler.disable()
        if given["start_new_session"]:
            os.setsid()
        _redirect(given)
        if given["env"] is not None:
            os.environ.clear()
            os.environ.update(given["env"])
        if given["cwd"] is not None:
            os.chdir(given["cwd"])
        _import_from(os.environ.get("PYTHONPATH", ""))
        logging.root.handlers.clear()  # pytest's; without any, warnings go to stderr as they do in a command
        warnings.filterwarnings("ignore", ".*found in sys.modules after import of package", RuntimeWarning)
        code = _exit_code(command)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _redirect(given: dict[str, Any]) -> None:
    """Put the child's ends of the pipes in place of the standard streams; the other ends are the parent's."""
    for descriptor, (theirs, ours) in enumerate((PIPES[0], PIPES[1][::-1], PIPES[2][::-1])):
        if given[ours] != -1:
            os.close(given[ours])
        if given[theirs] != -1:
            os.dup2(given[theirs], descriptor)
    for name in {given[theirs] for theirs in ("p2cread", "c2pwrite", "errwrite")} - {-1, 0, 1, 2}:
        os.close(name)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115, as Python opens it


def _import_from(path: str) -> None:
    """Forget this project's own modules where the environment has them elsewhere: first on its path."""
    place = path.split(os.pathsep)[0]
    if place and Path(place) != Path(__file__).parents[1]:
        for name in [name for name in sys.modules if name.split(".")[0] in OWN]:
            del sys.modules[name]
        sys.path.insert(0, place)


def _exit_code(command: list[str]) -> int:
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
