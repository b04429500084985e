"""How every plot looks: one colour and marker a method, legible in print, grey and to everyone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bench.machine.files import write_atomic
from bench.record import Interval

MAX_BYTES = 190_000
SAMPLE_QUALITY = 40  # of WebP
DPI = 150
GREY = "#8a8a8a"


class MethodStyle(NamedTuple):
    """How a method is drawn, in every plot."""

    colour: str
    marker: str
    line: Any


# Okabe and Ito's colours, and some of Paul Tol's: colour-blind readers can distinguish them.
STYLES = {
    "baseline": MethodStyle("#000000", "*", "-"),
    "dqar": MethodStyle("#0072B2", "o", "-"),
    "fewer_steps": MethodStyle("#D55E00", "s", "--"),
    "fora": MethodStyle("#009E73", "^", "-."),
    "pab": MethodStyle("#CC79A7", "v", ":"),
    "taylorseer": MethodStyle("#56B4E9", "D", (0, (5, 1))),
    "first_block": MethodStyle("#E69F00", "P", (0, (3, 1, 1, 1))),
    "magcache": MethodStyle("#882255", "X", (0, (1, 1))),
    "fastercache": MethodStyle("#999933", "<", (0, (5, 5))),
    "teacache": MethodStyle("#117733", "p", (0, (4, 2))),
    "seacache": MethodStyle("#44AA99", "d", (0, (2, 2))),
    "meancache": MethodStyle("#AA4499", "H", (0, (6, 2))),
    "hicache": MethodStyle("#117733", "d", (0, (4, 2))),
    "speca": MethodStyle("#6699CC", "8", (0, (6, 1, 1, 1))),
    "budcache": MethodStyle("#999933", "^", (0, (6, 1, 1, 1))),
    "l2p": MethodStyle("#661100", "h", (0, (2, 1, 1, 1))),
    "dbcache": MethodStyle("#332288", ">", (0, (3, 5, 1, 5))),
}
_OTHER = MethodStyle("#555555", "h", "-")

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "dqar",
}


def method_style(method: str) -> MethodStyle:
    """Choose how a method is drawn.

    Args:
        method: the method's name; an unknown one is grey.

    Returns:
        Colour, marker and line.
    """
    return STYLES.get(method, _OTHER)


@contextmanager
def style() -> Iterator[None]:
    """Draw in the reports' style, whatever the machine's matplotlibrc sets."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def plain(text: str) -> str:
    """Keep text from a record literal in a plot: its dollar signs begin no formula.

    Args:
        text: any text.

    Returns:
        The text as matplotlib takes it.
    """
    return text.replace("$", r"\$")


def canvas(width: float, height: float) -> Figure:
    """Make an empty figure on a canvas that needs no display.

    Args:
        width: the figure's width in inches.
        height: the figure's height in inches.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def error_bar(value: Interval) -> list[list[float]]:
    """Convert an interval to what matplotlib's error bars take.

    Args:
        value: the value with its interval.

    Returns:
        Distances below and above, [2, 1], not negative.
    """
    return [[max(value.value - value.low, 0)], [max(value.high - value.value, 0)]]


def save(figure: Figure, path: Path, photographs: bool = False) -> Path:
    """Write a WebP without dates or versions in it, small enough to keep in a repository.

    Args:
        figure: what is drawn.
        path: ends in `.webp`.
        photographs: whether samples are shown, which are compressed with loss: the records have their pixels.
            Lines and areas are exact but for a palette of their own.

    Returns:
        `path`.
    """
    full = _drawn(figure)
    write_atomic(path, _photographs(full) if photographs else _with_palette(full))
    return path


def _drawn(figure: Figure) -> Image.Image:
    """The figure's pixels on white, drawn once: `savefig` would encode them only to be decoded here."""
    figure.set(dpi=DPI, facecolor="white")
    drawn = FigureCanvasAgg(figure)
    drawn.draw()  # type: ignore[no-untyped-call]
    pixels = drawn.buffer_rgba()  # type: ignore[no-untyped-call]
    return Image.frombuffer("RGBA", drawn.get_width_height(), pixels).convert("RGB")


def _photographs(image: Image.Image) -> bytes:
    return _encoded(image, quality=SAMPLE_QUALITY, method=6)


def _with_palette(image: Image.Image) -> bytes:
    """Without loss, with the largest palette that stays below the limit; flat areas keep their colours."""
    encoded = b""
    for colours in (128, 64, 32):
        reduced = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        encoded = _encoded(reduced.convert("RGB"), lossless=True, quality=100, method=4)
        if len(encoded) <= MAX_BYTES:
            break
    return encoded


def _encoded(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", **options)
    return stream.getvalue()
