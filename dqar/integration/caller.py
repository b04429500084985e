"""The caller of the transformer. diffusers gives a model no reference to its pipeline, yet one model may be
in several pipelines, and whether a batch holds two guidance halves is the pipeline's to know. Both stand
in the frame of the pipeline's `__call__`, a few frames above the transformer's."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, NamedTuple

from torch import Tensor

NEAR = 12  # frames above the transformer's call within which a pipeline's `__call__` is looked for


class Caller(NamedTuple):
    """The pipeline that calls, and its frame; both None in a hand-written loop."""

    pipe: Any
    frame: FrameType | None

    def doubles(self, batch: int) -> bool | None:
        """Whether the pipeline runs its latents twice in one batch, for guidance.

        Args:
            batch: Samples in the transformer's call.

        Returns:
            None = unknown.
        """
        if self.frame is None:
            return None
        names = self.frame.f_locals
        latents = names.get("latents")
        if isinstance(latents, Tensor):
            return bool(batch == 2 * len(latents))
        for value in (
            names.get("do_classifier_free_guidance"),
            getattr(self.pipe, "do_classifier_free_guidance", None),
        ):
            if isinstance(value, bool):
                return value
        return None


UNKNOWN = Caller(None, None)


def calling_pipeline(depth: int = 1, known: Caller = UNKNOWN) -> Caller:
    """The nearest pipeline whose `__call__` is running.

    Args:
        depth: Frames above the caller's own at which the search begins.
        known: The last one: its frame is recognised without a copy of all its local variables.

    Returns:
        The pipeline and its frame; `UNKNOWN` where there is none within `NEAR` frames.
    """
    frame: FrameType | None = sys._getframe(depth + 1)
    for _ in range(NEAR):
        if frame is None:
            break
        if frame is known.frame:
            return known
        if frame.f_code.co_name == "__call__":
            owner = frame.f_locals.get("self")
            if hasattr(type(owner), "components"):  # a DiffusionPipeline, of which nothing is imported here
                return Caller(owner, frame)
        frame = frame.f_back
    return UNKNOWN
