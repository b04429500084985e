"""Packages that `pip install dqar` alone does not install."""

from __future__ import annotations

import importlib
from typing import Any

from dqar.errors import MissingExtra


def imported(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: Its name, such as `torch_fidelity.registry`.
        extra: The extra of `dqar` that installs the package.

    Returns:
        The module.

    Raises:
        MissingExtra: It is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingExtra(f"{package} is not installed; needed: pip install 'dqar[{extra}]'") from error
