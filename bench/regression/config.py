"""asv's configuration for one command: what is written where, on whatever branch one stands."""

from __future__ import annotations

import json
from pathlib import Path

GIVEN = Path(__file__).parent / "asv.conf.json"
PATHS = ("repo", "benchmark_dir", "results_dir", "html_dir", "env_dir")  # relative to the file in `GIVEN`
# asv names branches and stops where one of them is missing; HEAD is there on any branch and on none.
BRANCHES = ["HEAD"]


def written(directory: Path, given: Path = GIVEN, **changes: Path) -> Path:
    """Write a copy of asv's configuration, with paths that hold where it stands.

    Args:
        directory: An existing directory, which the copy goes to.
        given: The configuration; its paths are relative to it.
        changes: Other paths by key, such as `results_dir`.
        **changes: Other paths by key, such as `results_dir`.

    Returns:
        The file.
    """
    content = json.loads(given.read_text(encoding="utf-8"))
    paths = {key: str((given.parent / content[key]).resolve()) for key in PATHS}
    paths |= {key: str(path.resolve()) for key, path in changes.items()}
    file = directory / given.name
    file.write_text(json.dumps(content | paths | {"branches": BRANCHES}), encoding="utf-8")
    return file
