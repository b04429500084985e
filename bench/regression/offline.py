"""asv's pages made safe to open: nothing is loaded from elsewhere, and no text in them is run.

asv puts benchmark names, their code and a machine's description into pages as HTML, some of it from files of
results that others may have written.
"""

from __future__ import annotations

import html
import json
import lzma
import re
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parent / "vendor"
# Scripts from files next to the page only: neither an inline script nor an event handler in a text runs.
POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'self'; script-src 'self';"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'\">"
)
_REMOTE = re.compile(r'(src|href)="https://[^"]*/([^/"]+)"')
_CHECKS = re.compile(r' (?:integrity|crossorigin|referrerpolicy|onerror)="[^"]*"')
_REDIRECT = re.compile(
    r"<script type=\"text/javascript\">\s*function js_load_failure\(\).*?</script>", re.DOTALL
)


def make_offline(pages: Path) -> None:
    """Make asv's pages work without a network: its libraries are copied to them, and nothing else may run.

    Args:
        pages: the directory of the pages; its index.html is rewritten.

    Raises:
        ValueError: a library that is not installed.
    """
    index = pages / "index.html"
    text = index.read_text(encoding="utf-8")
    names = {name for _, name in _REMOTE.findall(text)}
    for name in sorted(names):
        packed = VENDOR / f"{name}.xz"
        if not packed.exists():
            raise ValueError(f"asv's pages load {name}, which {VENDOR.name}/ has not")
        (pages / VENDOR.name).mkdir(exist_ok=True)
        (pages / VENDOR.name / name).write_bytes(lzma.decompress(packed.read_bytes()))
    text = _CHECKS.sub("", _REMOTE.sub(rf'\1="{VENDOR.name}/\2"', _REDIRECT.sub("", text)))
    index.write_text(text.replace("<head>", f"<head>\n    {POLICY}", 1), encoding="utf-8")
    _escape(pages / "index.json")


def _escape(index: Path) -> None:
    """Make HTML of the texts that asv's scripts insert as such."""
    if index.exists():
        content = json.loads(index.read_text(encoding="utf-8"))
        index.write_text(json.dumps(_escaped(content)), encoding="utf-8")


def _escaped(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {_safe(name): _escaped(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item, key) for item in value]
    if isinstance(value, str):
        return html.escape(value) if key == "code" else _safe(value)
    return value


def _safe(text: str) -> str:
    """`text` without tags. Not escaped in full: asv finds its files by some of these texts."""
    return text.replace("<", "&lt;").replace(">", "&gt;")
