"""The base of all parts of a suite."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SuitePart(BaseModel):
    """A part of a suite: frozen, and closed to unknown fields.

    Defaults are validated too, so that 60 and 60.0 are one value to the content key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
