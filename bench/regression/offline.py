"""Published pages that need no network: what asv loads from elsewhere is copied beside them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

VENDOR = Path(__file__).parent / "vendor"
_REMOTE = re.compile(r'(src|href)="https://[^"]*/([^/"]+)"')
_CHECKS = re.compile(r' (?:integrity|crossorigin|referrerpolicy)="[^"]*"')


def make_offline(pages: Path) -> None:
    """Point `pages`/index.html to copies of its libraries; ValueError for one that is not at hand."""
    index = pages / "index.html"
    text = index.read_text()
    names = {name for _, name in _REMOTE.findall(text)}
    for name in sorted(names):
        if not (VENDOR / name).exists():
            raise ValueError(f"asv's pages load {name}, which {VENDOR.name}/ has not")
        (pages / VENDOR.name).mkdir(exist_ok=True)
        shutil.copyfile(VENDOR / name, pages / VENDOR.name / name)
    index.write_text(_CHECKS.sub("", _REMOTE.sub(rf'\1="{VENDOR.name}/\2"', text)))
