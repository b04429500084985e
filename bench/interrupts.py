"""What Ctrl-C does: it leaves at once while libraries load, and is a KeyboardInterrupt from then on.

An exception in the middle of an import comes out of it as another one, or as a panic of compiled code: a
traceback, where one line was due.
"""

import os
import signal
import threading
from types import FrameType

INTERRUPTED = 130
_LINE = b"interrupted: run it again to resume\n"
_seen: list[int] = []


def leave_at_once() -> None:
    """Until `interruptible`, Ctrl-C ends the process: nothing has begun that would have to be cleaned up."""
    _handle(_leave)


def interruptible() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, and `was_interrupted` reports it even if caught."""
    _handle(_raise)


def was_interrupted() -> bool:
    """Whether Ctrl-C came since `interruptible`.

    Returns:
        True even where the KeyboardInterrupt was caught on its way, or turned into another error.
    """
    return bool(_seen)


def _handle(handler: object) -> None:
    # Where whoever started this process ignores Ctrl-C, as a shell does for what runs in the background, so
    # do we; outside of the main thread Python allows no handler.
    ours = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _leave, _raise)
    if ours and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, _LINE)
    os._exit(INTERRUPTED)


def _raise(number: int, frame: FrameType | None) -> None:
    _seen.append(number)
    raise KeyboardInterrupt
