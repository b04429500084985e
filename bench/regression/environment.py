"""asv's existing environment under a name that holds no path.

asv names a series of results after its interpreter's path, which is another one in every clone, and
none that belongs in a repository.
"""

from __future__ import annotations

import sys
from typing import Any

from asv.environment import ExistingEnvironment

PYTHON = "{}.{}".format(*sys.version_info)
SERIES = f"here-py{PYTHON}"  # this interpreter's


class Here(ExistingEnvironment):  # type: ignore[misc]
    """The interpreter that runs asv, with all that is installed for it.

    Args:
        *arguments: what asv gives an environment: its configuration, Python, requirements and variables.
    """

    tool_name = "here"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._python = PYTHON

    @property
    def name(self) -> str:
        """The name of the series: the tool's, and Python's version."""
        return SERIES
