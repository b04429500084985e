"""Recognises the numbers in a report's sentences and calculates each again in another way."""

# ruff: noqa: RUF001 - the signs × and − are meant

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean, median

from bench.record import Interval, Record

NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
BOUNDS = rf"\[({NUMBER}), ({NUMBER})\]"
# Constants of the templates: they are the same on every page.
CONSTANTS = (
    "95 %", "1 / (1 − Σ rᵢfᵢ)", "(speedup − 1) / (limit − 1)", "(relative L2; 0: the same image)",
    "relative L2",
    "at least 24 images", "are needed", "2,000 resamples", "10⁶ bytes", "1 MB =", "0 means the same images",
    "*> 0.2* is the share", "the last halved down to timestep 0",
)  # fmt: skip


class Sentence:
    """What is left of a sentence to explain, the records that it is about, and the one named last."""

    def __init__(self, text: str, records: Sequence[Record], margin: float) -> None:
        self.text = text
        self.records = [record for record in records if record.status != "skipped"]
        self.finished = [record for record in self.records if record.status == "ok"]
        self.named = {record.name: record for record in self.records}
        self.current: Record | None = None
        self.margin = margin

    def explain(self) -> str:
        """Check every number that has a form below; returns what holds a digit and has none."""
        models = {str(record.config.get("model")) for record in self.records}
        for constant in (*CONSTANTS, *models):
            self.text = self.text.replace(constant, " ")
        position = 0
        while match := _FORMS.search(self.text, position):
            form = next(name for name, value in match.groupdict().items() if value is not None)
            parts = re.compile(FORMS[form][0]).match(self.text, match.start())
            assert parts is not None
            FORMS[form][1](self, *parts.groups())
            self.text = self.text[: match.start()] + " ¤ " + self.text[match.end() :]
            position = match.start()
        rest = re.sub(r"`[^`]*`", " ", self.text)
        return rest if re.search(r"\d", rest) else ""

    def record(self, name: str) -> Record:
        """The record of that name, which is the one spoken of from here on."""
        self.current = self.named[name]
        return self.current


def same(shown: str, value: float) -> None:
    """The number shown is the value, rounded as it is shown."""
    decimals = len(shown.partition(".")[2])
    assert abs(float(shown) - value) <= 0.5001 * 10**-decimals, (shown, value)


def ends(low: str, high: str, found: Interval) -> None:
    same(low, found.low)
    same(high, found.high)


def ratios(record: Record) -> list[float]:
    timing = record.timing
    assert timing is not None
    pairs = [pair for i, pair in enumerate(timing.pairs) if i not in set(timing.contaminated)]
    return [a / b for a, b in (pairs if len(pairs) > 1 else timing.pairs)]


def _speed(s: Sentence, name: str, value: str, low: str, high: str) -> None:
    record = s.record(name)
    assert record.timing is not None
    same(value, median(ratios(record)))
    ends(low, high, record.timing.speedup)


def _drift(s: Sentence, value: str, low: str, high: str) -> None:
    assert s.current is not None and s.current.quality is not None
    same(value, fmean(s.current.quality.drift_per_image))
    ends(low, high, s.current.quality.drift)


def _converged(s: Sentence, *shown: str) -> None:
    assert s.current is not None and s.current.quality is not None
    quality = s.current.quality
    assert quality.drift_converged is not None and quality.baseline_drift_converged is not None
    for (value, low, high), found in zip(
        (shown[:3], shown[3:6]), (quality.drift_converged, quality.baseline_drift_converged), strict=True
    ):
        same(value, found.mean)
        ends(low, high, found)
    assert int(shown[6]) == quality.n_converged


def _difference(s: Sentence, value: str, low: str, high: str, n: str, bound: str, verdict: str) -> None:
    """The paired difference again from single images; its interval by the normal approximation."""
    assert s.current is not None and s.current.quality is not None
    quality = s.current.quality
    pairs = zip(quality.drift_converged_per_image, quality.baseline_drift_converged_per_image, strict=True)
    gaps = [candidate - baseline for candidate, baseline in pairs]
    same(value, fmean(gaps))
    assert int(n) == len(gaps)
    error = 1.96 * (fmean((gap - fmean(gaps)) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert abs(float(high) - float(low) - 2 * error) < 0.5 * error + 1e-6
    same(bound, s.margin * fmean(quality.baseline_drift_converged_per_image))
    expected = (
        "no loss" if float(high) < float(bound) else "loss" if float(low) > float(bound) else "inconclusive"
    )
    assert verdict == expected


def _psnr(s: Sentence, value: str) -> None:
    assert s.current and s.current.quality and s.current.quality.psnr_db
    same(value, s.current.quality.psnr_db.mean)


def _worst(s: Sentence, n: str, value: str) -> None:
    assert s.current is not None and s.current.quality is not None
    assert int(n) == len(s.current.quality.drift_per_image)
    same(value, max(s.current.quality.drift_per_image))


def _limit(s: Sentence, value: str) -> None:
    assert s.current is not None and s.current.limits is not None
    same(value, s.current.limits.speedup_limit)


def _held(s: Sentence, name: str, value: str) -> None:
    memory = s.named[name].memory
    assert memory is not None
    same(value, memory.cache_bytes / 1e6)


def _most(s: Sentence, name: str, value: str) -> None:
    held = {record.name: record.memory.cache_bytes for record in s.finished if record.memory}
    assert held[name] == max(held.values())
    same(value, held[name] / 1e6)


def _between(s: Sentence, least: str, first: str, most: str, last: str) -> None:
    held = {r.name: r.memory.cache_bytes for r in s.finished if r.memory and r.method != "baseline"}
    known = {name: value for name, value in held.items() if value}
    assert (known[first], known[last]) == (min(known.values()), max(known.values()))
    same(least, known[first] / 1e6)
    same(most, known[last] / 1e6)


def _peak(s: Sentence, where: str, value: str, name: str) -> None:
    field = "rss_peak" if where == "in host memory" else "torch_allocated_peak"
    peaks = {r.name: getattr(r.memory, field) or 0 for r in s.finished if r.memory}
    assert peaks[name] == max(peaks.values())
    same(value, peaks[name] / 1e6)


def _itself(s: Sentence, value: str, low: str, high: str) -> None:
    control = next(r for r in s.finished if r.method == "baseline" and r.timing)
    _speed(s, control.name, value, low, high)


def _control(s: Sentence, name: str, value: str, low: str, high: str, covers: str) -> None:
    _speed(s, name, value, low, high)
    assert s.named[name].method == "baseline"
    assert (covers == "covers") == (float(low) <= 1 <= float(high))


def _verdict(s: Sentence, count: str, verdict: str) -> None:
    found = Counter(r.timing.verdict for r in s.finished if r.timing and r.method != "baseline")
    assert int(count) == found[verdict]  # type: ignore[index]


def _losses(s: Sentence, count: str, verdict: str) -> None:
    """How many have the verdict by the normal approximation; one whose bound is near an end may be either."""
    sure = near = 0
    for record in s.finished:
        quality = record.quality
        if record.method == "baseline" or quality is None or not quality.drift_converged_per_image:
            continue
        baseline = quality.baseline_drift_converged_per_image
        gaps = [a - b for a, b in zip(quality.drift_converged_per_image, baseline, strict=True)]
        error = 1.96 * (fmean((gap - fmean(gaps)) ** 2 for gap in gaps) / len(gaps)) ** 0.5
        low, high, bound = fmean(gaps) - error, fmean(gaps) + error, s.margin * fmean(baseline)
        found = "no loss" if high < bound else "loss" if low > bound else "inconclusive"
        close = min(abs(low - bound), abs(high - bound)) < 0.5 * error
        near, sure = near + close, sure + (found == verdict and not close)
    assert sure <= int(count) <= sure + near


def _unclaimed(s: Sentence, count: str) -> None:
    without = [
        r for r in s.finished
        if r.method != "baseline" and r.quality and not r.quality.drift_converged_per_image
    ]  # fmt: skip
    assert int(count) == len(without)


def _configurations(s: Sentence, count: str) -> None:
    assert int(count) == len(s.records)


def _compared(s: Sentence, count: str) -> None:
    assert int(count) == sum(bool(r.timing and r.quality) for r in s.finished)


def _few(s: Sentence, few: str, count: str) -> None:
    assert int(few) < int(count) == len(s.records)


def _process(s: Sentence, count: str) -> None:
    assert int(count) == 1 + max(len(r.timing.shared_with) for r in s.finished if r.timing)


def _range(values: Callable[[Sentence], list[int]]) -> Callable[..., None]:
    def check(s: Sentence, low: str, high: str | None) -> None:
        found = values(s)
        assert (int(low), int(high or low)) == (min(found), max(found))

    return check


def _excluded(s: Sentence, count: str, total: str) -> None:
    timings = [r.timing for r in s.finished if r.timing]
    left = [len(t.contaminated) for t in timings if len(t.pairs) - len(t.contaminated) > 1]
    assert (int(count), int(total)) == (sum(left), sum(len(t.pairs) for t in timings))


def _excluded_of(s: Sentence, name: str, count: str) -> None:
    timing = s.named[name].timing
    assert timing is not None and int(count) == len(timing.contaminated)


def _counts(s: Sentence, images: str, converged: str) -> None:
    found = [r.quality for r in s.finished if r.quality]
    assert {*map(int, images.split(" or "))} == {len(q.drift_per_image) for q in found}
    assert {*map(int, converged.split(" or "))} == {q.n_converged for q in found}


def _reference(s: Sentence, value: str) -> None:
    known = [r.quality for r in s.finished if r.quality and r.quality.baseline_drift_converged]
    most = max(q.n_converged for q in known)
    means = [
        q.baseline_drift_converged.mean for q in known if q.n_converged == most and q.baseline_drift_converged
    ]
    same(value, means[0])


def _margin(s: Sentence, value: str) -> None:
    assert float(value) == 100 * s.margin


def _config(field: str) -> Callable[..., None]:
    def check(s: Sentence, value: str) -> None:
        assert {str(r.config[field]).removesuffix(".0") for r in s.records if field in r.config} == {value}

    return check


def _cores(s: Sentence, value: str) -> None:
    assert all(f'"cores": {value}' in json.dumps(r.environment) for r in s.finished)


def _solved(s: Sentence, *shown: str) -> None:
    """The steps are those that the configurations name."""
    found = set()
    for record in s.finished:
        quality = record.config["quality"]
        if record.quality and record.quality.n_converged:
            found.add(quality["converged_steps"])
    assert {int(steps) for steps in shown} <= found


def _distances(s: Sentence, n: str, fd: str, *kid: str) -> None:
    found = next(r.quality.to_reference for r in s.finished if r.method == "baseline" and r.quality)
    assert found is not None and found.kid is not None and int(n) == found.n
    same(fd, found.fd)
    same(kid[0], found.kid.mean)
    ends(kid[1], kid[2], found.kid)


def _changes(s: Sentence) -> dict[str, Interval]:
    """The KID's change of each configuration but the control."""
    found = {r.name: r.quality.to_reference for r in s.finished if r.quality and r.method != "baseline"}
    return {name: one.kid_change for name, one in found.items() if one and one.kid_change}


def _further(s: Sentence, count: str, of: str) -> None:
    changes = _changes(s).values()
    assert (int(count), int(of)) == (sum(change.low > 0 for change in changes), len(changes))


def _furthest(s: Sentence, value: str, low: str, high: str, name: str) -> None:
    changes = _changes(s)
    assert changes[name].value == max(change.value for change in changes.values())
    same(value, changes[name].value)
    ends(low, high, changes[name])


V = rf"({NUMBER})"
RANGE = r"(\d+)(?: to (\d+))?"
FORMS: dict[str, tuple[str, Callable[..., None]]] = {
    "speed": (rf"`([^`]+)` at {V}× {BOUNDS} the baseline's speed", _speed),
    "drift": (rf"[dD]rift from the baseline {V} {BOUNDS}", _drift),
    "converged": (
        rf"drift from the converged trajectory {V} {BOUNDS}, the baseline's own {V} {BOUNDS}, "
        r"over (\d+) images",
        _converged,
    ),
    "difference": (
        rf"paired difference {V} {BOUNDS} over (\d+) images, margin {V}: ([a-z ]+)(?=[).;])",
        _difference,
    ),
    "psnr": (rf"mean PSNR {V} dB", _psnr),
    "worst": (rf"the worst of (\d+) images drifts by {V}", _worst),
    "limit": (rf"counted FLOPs allow {V}×", _limit),
    "most": (rf"the most of all is `([^`]+)` {V} MB", _most),
    "between": (rf"from {V} MB \(`([^`]+)` \(\w+\)\) to {V} MB \(`([^`]+)` \(\w+\)\)", _between),
    "peak": (rf"the highest peak (in host memory|on the device) is {V} MB \(`([^`]+)` \(\w+\)\)", _peak),
    "held": (rf"`([^`]+)` {V} MB", _held),
    "control": (rf"`([^`]+)`: ratio {V} {BOUNDS}, which (covers|does not cover) 1", _control),
    "itself": (rf"baseline against itself: {V} {BOUNDS}", _itself),
    "verdict": (r"(\d+) (AMBIGUOUS|FASTER|SLOWER|SAME)", _verdict),
    "unclaimed": (r"(\d+) no claim", _unclaimed),
    "losses": (r"(\d+) (no loss|loss|inconclusive)\b", _losses),
    "few": (r"show (\d+) of (\d+) configurations", _few),
    "compared": (r"all (\d+) configurations compared", _compared),
    "configurations": (r"(?<![\d.])(\d+) configurations?(?= on|,)", _configurations),
    "process": (r"up to (\d+) to a process", _process),
    "pairs": (
        rf"{RANGE} timed pairs",
        _range(lambda s: [len(r.timing.pairs) for r in s.finished if r.timing]),
    ),
    "images": (
        rf"{RANGE} images compared",
        _range(lambda s: [len(r.quality.drift_per_image) for r in s.finished if r.quality]),
    ),
    "deciding": (
        rf"{RANGE} of them with the converged",
        _range(lambda s: [r.quality.n_converged for r in s.finished if r.quality and r.quality.n_converged]),
    ),
    "excluded": (r"excluded from the metrics: (\d+) of (\d+)", _excluded),
    "excluded_of": (r"(?<=[(,] )?`([^`]+)` (\d+)(?=[,)])", _excluded_of),
    "itself_zero": (r"drift from itself exactly 0", lambda s: None),
    "counts": (r"over ([\d or]+) images, ([\d or]+) for the converged trajectory", _counts),
    "reference": (rf"reference \({V} here\)", _reference),
    "distances": (rf"baseline's (\d+) images have FD {V}, KID {V} {BOUNDS}", _distances),
    "further": (r"by KID (\d+) of (\d+) other configurations", _further),
    "furthest": (rf"largest change is {V} {BOUNDS} of `([^`]+)`", _furthest),
    "solved": (r"\bby [\w+]+ at (\d+) steps", _solved),
    "margin": (r"below (\d+) % of", _margin),
    "steps": (r"(\d+) steps", _config("num_inference_steps")),
    "guidance": (rf"guidance {V}", _config("guidance_scale")),
    "batch": (r"batch (\d+)", _config("batch_size")),
    "precision": (r"(?<=, )((?:fp|bf)\d+)", _config("dtype")),
    "cores": (r"(\d+) cores", _cores),
}  # fmt: skip


def _ungrouped(pattern: str) -> str:
    """The pattern with its groups not captured."""
    return re.sub(r"\((?!\?)", "(?:", pattern.replace(r"\(", "\0")).replace("\0", r"\(")


_FORMS = re.compile("|".join(f"(?P<{name}>{_ungrouped(pattern)})" for name, (pattern, _) in FORMS.items()))
