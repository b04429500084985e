"""The failures that the harness expects, each said in one line."""

from __future__ import annotations


class BadInput(Exception):
    """What a user gave cannot be used: one line naming it and what is allowed; exit code 2."""


class NonFinite(Exception):
    """A latent is NaN or infinite; the message names the step, and the layer where it is known."""
