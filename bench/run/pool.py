"""A pool of Ray actors: Ray places them, watches them and moves what they return; this hands out tasks.

A worker that dies loses its task to whichever is idle next, rather than to its own restart
(`max_task_retries`), which on a node that is gone would wait for ever.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import exceptions as errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ATTEMPTS = 3  # of a task whose worker dies: a fault of the task's own would take one worker after another
REFRESH_S = 2.0  # between two looks at who is there
PATIENCE_S = 120.0  # without any worker
AGAIN = object()  # in place of a result, which may be None: the task is to be done again
# What happens to a task without being its fault.
LOST = (
    errors.RayActorError, errors.ObjectLostError, errors.NodeDiedError, errors.WorkerCrashedError,
    errors.OutOfMemoryError, errors.ObjectStoreFullError, errors.OutOfDiskError, errors.LocalRayletDiedError,
)  # fmt: skip


@dataclass
class Task:
    """A call of a worker's method."""

    method: str
    arguments: tuple[Any, ...]
    limit_s: float
    what: Any = None  # for whoever gets the result
    attempts: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a task has no result, in one line."""

    reason: str
    trace: str | None = None


@dataclass(frozen=True)
class Slots:
    """How many workers a node holds and what each takes of it."""

    node: str
    count: int
    num_cpus: float
    num_gpus: float


@dataclass
class Pool:
    """Workers on the nodes that `slots` lists, which may come and go."""

    slots: Callable[[], list[Slots]]
    actors: Any  # their class, as `ray.remote` makes it
    arguments: tuple[Any, ...] = ()
    most: int | None = None  # workers
    nodes: dict[Any, str] = field(default_factory=dict)  # worker -> its node
    idle: deque[Any] = field(default_factory=deque)
    waiting: deque[Task] = field(default_factory=deque)
    starting: dict[Any, Any] = field(default_factory=dict)  # reference of `ready` -> worker
    looked: float = -REFRESH_S
    refused: int = 0  # workers in a row that did not start
    why: str = ""

    def results(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        """Run tasks; a worker has one at a time.

        Args:
            tasks: what to run; the first are started first.

        Yields:
            Each task with its result, or a `Failure`, as they end.
        """
        self.waiting = waiting = deque(tasks)
        busy: dict[Any, tuple[Any, Task, float]] = {}
        alone_since = time.monotonic()
        while waiting or busy:
            self._hire()
            while waiting and self.idle:
                worker, task = self.idle.popleft(), waiting.popleft()
                end = time.monotonic() + task.limit_s
                busy[getattr(worker, task.method).remote(*task.arguments)] = worker, task, end
            if self.nodes:
                alone_since = time.monotonic()
            if self.refused >= ATTEMPTS or time.monotonic() - alone_since > PATIENCE_S:
                why = self.why or f"no worker for {PATIENCE_S:g} s"
                yield from (
                    (task, Failure(why)) for task in (*waiting, *(task for _, task, _ in busy.values()))
                )
                return
            yield from self._ended(busy, waiting)

    def drop(self) -> None:
        """Forget the tasks that no worker has started."""
        self.waiting.clear()

    def close(self) -> None:
        """Let all workers go."""
        for worker in list(self.nodes):
            self._dismiss(worker)
        self.idle.clear()
        self.starting.clear()

    @property
    def size(self) -> int:
        """Workers that are there or starting."""
        return len(self.nodes)

    def _ended(
        self, busy: dict[Any, tuple[Any, Task, float]], waiting: deque[Task]
    ) -> Iterator[tuple[Task, Any]]:
        """Wait a little; the tasks that have ended, or take too long."""
        if not busy and not self.starting:
            time.sleep(0.2)
            return
        first = min((end for *_, end in busy.values()), default=time.monotonic() + REFRESH_S)
        wait = min(REFRESH_S, max(0.0, first - time.monotonic()))
        for reference in ray.wait([*busy, *self.starting], timeout=wait)[0]:
            if reference in self.starting:
                self._started(reference)
                continue
            worker, task, _ = busy.pop(reference)
            result = self._result(reference, worker, task)
            if result is AGAIN:
                waiting.appendleft(task)
            else:
                yield task, result
        for reference in [r for r, (*_, end) in busy.items() if end < time.monotonic()]:
            worker, task, _ = busy.pop(reference)
            self._dismiss(worker)
            yield task, Failure(f"time limit: no result within {task.limit_s:g} s")

    def _started(self, reference: Any) -> None:
        worker = self.starting.pop(reference)
        try:
            ray.get(reference)
        except Exception as error:
            self.refused += not isinstance(error, errors.NodeDiedError)
            self.why = f"a worker does not start: {' '.join(str(error).split())[-300:]}"
            self._dismiss(worker)
        else:
            self.refused = 0
            self.idle.append(worker)

    def _result(self, reference: Any, worker: Any, task: Task) -> Any:
        """What a task returned, or a Failure; AGAIN where it is to be done again."""
        try:
            result = ray.get(reference)
        except LOST as error:
            self._dismiss(worker)
            task.attempts += 1
            return Failure(_lost(error)) if task.attempts >= ATTEMPTS else AGAIN
        except errors.RayTaskError as error:
            self.idle.append(worker)
            cause = error.cause if isinstance(error.cause, BaseException) else error
            return Failure(f"{type(cause).__name__}: {cause}", str(error))
        self.idle.append(worker)
        return result

    def _dismiss(self, worker: Any) -> None:
        self.nodes.pop(worker, None)
        self.looked = -REFRESH_S  # at once who is there, and who is to replace it
        ray.kill(worker)

    def _hire(self) -> None:
        """Forget workers of nodes that are gone, and fill the slots of those that are there."""
        if time.monotonic() - self.looked < REFRESH_S:
            return
        self.looked = time.monotonic()
        for slots in self.slots():
            here = sum(node == slots.node for node in self.nodes.values())
            for _ in range(here, slots.count):
                if self.most is None or len(self.nodes) < self.most:
                    self._start(slots)

    def _start(self, slots: Slots) -> None:
        place = NodeAffinitySchedulingStrategy(slots.node, soft=False)
        needs: dict[str, Any] = {"num_cpus": slots.num_cpus, "num_gpus": slots.num_gpus}
        worker = self.actors.options(scheduling_strategy=place, **needs).remote(*self.arguments)
        self.nodes[worker] = slots.node
        self.starting[worker.ready.remote()] = worker


def _lost(error: Exception) -> str:
    """Why a task is given up: a result that fits nowhere is raised within the task's own error."""
    cause = getattr(error, "cause", None) or error
    full = isinstance(cause, (errors.ObjectStoreFullError, errors.OutOfDiskError))
    what = "its node's object store and disk are full" if full else f"{ATTEMPTS} workers were lost"
    return f"{type(cause).__name__}: {what}"
