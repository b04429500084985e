"""Fetching a model from the hub: with limits on silence, and a line that states what is waited for.

The hub's client waits minutes, and more than once, for a server or proxy that accepts a connection and sends
nothing. So it runs in a process of its own, which is stopped when nothing has arrived for a while.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

from bench.errors import BadInput, one_line
from bench.machine.process import die_with

FIRST_S = 30.0  # without a first byte
SILENCE_S = 120.0  # without a further one
SAY_S = 5.0  # between two lines that state what is waited for
# Safetensors where there are any: the same weights as .bin would be fetched as well.
PATTERNS = ["*.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors"]
FALLBACK = [*PATTERNS, "*/*.bin"]


def fetch(model: str, say: Callable[[str], None]) -> Path:
    """The directory of a model of the hub, fetched into its cache where it is not there.

    Args:
        model: owner/name.
        say: Called with a line that states what is waited for.

    Returns:
        A directory in the hub's cache.

    Raises:
        BadInput: it cannot be fetched, or nothing arrives for FIRST_S or SILENCE_S seconds.
    """
    try:
        return _client(model, say, FIRST_S)
    except Silence as silence:
        try:
            path = _client(model, say, FIRST_S, HF_HUB_OFFLINE="1")
        except BadInput:
            raise silence from None
        say(f"{model}: nothing arrives from the hub: its cached copy is used")
        return path


class Silence(BadInput):
    """Nothing arrives."""


def _client(model: str, say: Callable[[str], None], first_s: float, **env: str) -> Path:
    """What the client's process finds."""
    command = [sys.executable, "-m", "bench.pipeline.hub", model, str(os.getpid())]
    # The client's own limits are those of one attempt; there are several.
    limits = {"HF_HUB_ETAG_TIMEOUT": "10", "HF_HUB_DOWNLOAD_TIMEOUT": "20"}
    with TemporaryFile("w+") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.DEVNULL, env=limits | os.environ | env
        )
        try:
            _follow(process, model, say, first_s)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        return _result(model, out.read())


def _follow(process: subprocess.Popen[bytes], model: str, say: Callable[[str], None], first_s: float) -> None:
    """Wait for the end; Silence where nothing arrives."""
    started = last = said_at = time.monotonic()
    held = before = _bytes(model)
    while process.poll() is None:
        time.sleep(0.1)
        now, size = time.monotonic(), _bytes(model)
        if size != held:
            held, last = size, now
        limit = first_s if held == before else SILENCE_S
        if now - last > limit:
            raise Silence(
                f"model: {model!r} cannot be fetched: nothing arrived from the hub for {limit:.0f} s;"
                " needed: a network, or HF_HUB_OFFLINE=1 with the model in the hub's cache"
            )
        if now - said_at > SAY_S:
            said_at = now
            got, idle = (held - before) / 1e6, now - last
            say(f"fetching {model}: {got:.0f} MB in {now - started:.0f} s, nothing for {idle:.0f} s")


def _bytes(model: str) -> int:
    """Bytes of the model in the hub's cache, whole and partial files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    blobs = Path(HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "blobs"
    total = 0
    try:
        for file in blobs.iterdir():
            total += file.stat().st_size
    except OSError:  # not there yet, or renamed meanwhile
        pass
    return total


def _result(model: str, output: str) -> Path:
    try:
        result = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        result = {"error": "the hub's client ended without a result"}
    if "error" in result:
        raise BadInput(f"model: {model!r} cannot be fetched: {result['error'][:160]}")
    return Path(result["path"])


def main() -> None:
    """Fetch `argv[1]` for process `argv[2]`; the last line on stdout is its path, or why there is none."""
    model, parent = sys.argv[1:]
    die_with(int(parent))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        path = snapshot_download(model, allow_patterns=PATTERNS)
        if not any(Path(path).glob("*/*.safetensors")):
            path = snapshot_download(model, allow_patterns=FALLBACK)
        result = {"path": path}
    except (OSError, HfHubHTTPError, ValueError) as error:
        result = {"error": one_line(error)}
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
