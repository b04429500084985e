"""How a generation begins: its schedule as the pipeline sets it, and its guidance branches."""

from __future__ import annotations

from contextlib import suppress
from functools import wraps
from typing import Any, NamedTuple, NoReturn

from bench.methods.scheduler import solver
from bench.pipeline.session import Session
from dqar.core.snr import schedule_snr
from dqar.plan import FloatArray


class Beginning(NamedTuple):
    """What the first step shows."""

    snr: FloatArray  # of each step, `[steps]`
    guided: bool  # whether two guidance branches run, as halves of a batch or in two calls


class _Seen(Exception):
    """Ends a generation once its first step is known."""


def beginning(session: Session) -> Beginning:
    """Run the first step of one image, on the solver and steps that the session's options name.

    The pipeline sets its own timesteps: some shift them by the image's size or give sigmas of their own.

    Args:
        session: the loaded model; its options name the solver and the steps.

    Returns:
        The SNR of each step, and whether two guidance branches run.

    Raises:
        ValueError: The pipeline cannot use the solver.
    """
    pipe = session.pipe
    batches: list[int] = []

    def called(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        batches.append(len(args[0] if args else next(iter(kwargs.values()))))

    with solver(pipe, session.spec.options) as call:
        used = pipe.scheduler

        @wraps(used.step)  # pipelines look at which arguments it takes
        def step(*args: Any, **kwargs: Any) -> NoReturn:
            raise _Seen

        hook = pipe.transformer.register_forward_pre_hook(called, with_kwargs=True)
        used.step = step
        try:
            with suppress(_Seen):
                pipe(**session.arguments(range(1)) | call)
        finally:
            hook.remove()
            del used.step
        return Beginning(schedule_snr(used), sum(batches) == 2)
