"""The results that the original specification's author published, for `python -m bench reproduce`.

DiT-XL/2-256 (28 layers), 50 DDIM steps, guidance 4.0, one image; schedule from linear betas 1e-4 to
0.02, "leading" spacing; preset `conservative` (33 % of the layers, warm-up 20 %) unless stated otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

LAYERS, STEPS = 28, 50
TOKENS, WIDTH, BRANCHES = 256, 1152, 2  # of the model; guidance runs two branches
BASELINE_S = 2.77  # seconds an image, on an A100
CACHE_MB = 63  # of the cache, on an L4; the same with a cache called int8
ROUNDING = 0.005  # of speedups, which have two decimals


class Row(NamedTuple):
    """One published row: what was changed, and the reported result."""

    shown: str
    options: dict[str, float]  # over the preset's
    run: str  # the configuration of suite `reproduce` that measures it
    ratio: float  # percent, two digits
    speedup: float | None = None
    seconds: float | None = None  # an image


class Table(NamedTuple):
    """One published table."""

    title: str
    column: str
    rows: tuple[Row, ...]


def _layers(value: float, ratio: float, speedup: float, seconds: float) -> Row:
    options = {"layer_fraction": value}
    return Row(f"{value:.0%}", options, f"layers-layer_fraction={value}", ratio, speedup, seconds)


def _warmup(value: float, ratio: float, speedup: float) -> Row:
    run = "layers-layer_fraction=0.33" if value == 0.2 else f"warmup-warmup_fraction={value}"
    return Row(f"{value:.0%}", {"warmup_fraction": value}, run, ratio, speedup)


def _snr(value: float, ratio: float) -> Row:
    run = f"snr-snr_low={value}" if value else "warmup-warmup_fraction=0.4"
    return Row(f"{value:g}" if value else "none", {"warmup_fraction": 0.4, "snr_low": value}, run, ratio)


TABLES = (
    Table(
        "Layer fraction, warm-up 20 %",
        "layers",
        (
            _layers(0.33, 11.57, 1.04, 2.65),
            _layers(0.5, 18.71, 1.08, 2.57),
            _layers(0.66, 24.50, 1.11, 2.50),
            _layers(0.75, 28.71, 1.12, 2.48),
            _layers(1.0, 38.71, 1.18, 2.35),
        ),
    ),
    Table(
        "Warm-up, 33 % of the layers",
        "warm-up",
        (
            _warmup(0.1, 12.93, 1.03),
            _warmup(0.2, 11.57, 1.04),
            _warmup(0.3, 10.14, 1.04),
            _warmup(0.4, 8.79, 1.04),
            _warmup(0.5, 7.36, 1.03),
            _warmup(0.6, 6.00, 1.02),
        ),
    ),
    Table(
        "SNR threshold, warm-up 40 %, 33 % of the layers",
        "reuse from SNR",
        (
            _snr(0.0, 8.79),
            _snr(0.04, 8.79),
            _snr(0.1, 8.64),
            _snr(0.36, 7.64),
            _snr(0.5, 7.43),
            _snr(0.75, 6.86),
            _snr(1.2, 6.21),
            _snr(1.66, 5.50),
            _snr(1.93, 5.14),
        ),
    ),
)
