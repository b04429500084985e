"""The one immutable result of a run: what a worker writes, and all that a report may read.

A record is one JSON file, `results/<suite>/<machine>/<name>-<key>.json`, with the keys of `Record`.
Every metric that has an interval is `{"median" or "mean": x, "low": l, "high": h}` (95 %). A metric
that could not be measured is null, and the `missing` of its part gives the reason, never 0. Comments
below explain the fields whose name and unit (`_s`, `_j`, `_db`) do not. A change of a field's meaning
or name raises SCHEMA_VERSION; a new field has a default that is true of older records. Records on disk
are never rewritten.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Target = Literal["baseline", "converged"]  # what a drift is from

CLIP = "CLIP"  # how the name of a text scorer begins that is one; the score of no other is a CLIP score

# 2: lpips, and of a distance precision, recall and `missing`; its kid and n_reference may be null.
SCHEMA_VERSION = 2


class Part(BaseModel):
    """A part of a record: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Interval(Part):
    """A value with its 95 % interval; subclasses name the statistic that the value is."""

    low: float
    high: float

    @property
    def value(self) -> float:
        """The value that the interval belongs to."""
        raise NotImplementedError

    @property
    def half_width(self) -> float:
        """Half the interval's width, in the value's unit."""
        return (self.high - self.low) / 2

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width as a share of the value: what a suite's timing target bounds."""
        return self.half_width / abs(self.value)

    def contains(self, x: float) -> bool:
        """Whether a value lies in the interval, its ends included.

        Args:
            x: In the interval's unit.

        Returns:
            True from `low` to `high`.
        """
        return self.low <= x <= self.high

    def over(self, other: Interval) -> Estimate:
        """The ratio of two intervals, as wide as they make it at worst.

        Args:
            other: The divisor; both intervals are positive.

        Returns:
            value / value, from low / high to high / low.
        """
        return Estimate(
            estimate=self.value / other.value, low=self.low / other.high, high=self.high / other.low
        )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        slack = 1e-9 * max(abs(self.low), abs(self.high))  # resampled sums are rounded in another order
        if not self.low - slack <= self.value <= self.high + slack:
            raise ValueError(f"low {self.low}, value {self.value}, high {self.high} are not in this order")
        return self


class Median(Interval):
    """A median with its bootstrap 95 % interval."""

    median: float

    @property
    def value(self) -> float:
        """The median."""
        return self.median


class Mean(Interval):
    """A mean with its bootstrap 95 % interval."""

    mean: float

    @property
    def value(self) -> float:
        """The mean."""
        return self.mean


class Estimate(Interval):
    """A value calculated from others, with the interval that follows from theirs. No record holds one."""

    estimate: float

    @property
    def value(self) -> float:
        """The estimate."""
        return self.estimate

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """A value without uncertainty.

        Args:
            value: In any unit.

        Returns:
            An interval of no width.
        """
        return cls(estimate=value, low=value, high=value)


class Timing(Part):
    """Whole generations, baseline and candidate interleaved on the same inputs."""

    speedup: Median  # baseline seconds / candidate seconds, over the undisturbed pairs
    baseline_s: Median  # seconds a generation of `batch_size` images
    candidate_s: Median
    pairs: list[tuple[float, float]]  # raw (baseline, candidate) seconds, in the order measured
    # Indices of `pairs` measured while something else used the machine; `undisturbed` excludes them.
    contaminated: list[int]
    contaminated_why: list[str]
    baseline: str  # what the speedup is over: "eager", "compiled", "compiled with CUDA graphs"
    batch_size: int
    # Configurations of the same rounds: their pairs have the same baseline seconds.
    shared_with: list[str] = []
    stopped: Literal["target", "budget", "pairs"]  # why no more pairs were measured
    verdict: Literal["SAME", "FASTER", "SLOWER", "AMBIGUOUS"]
    verdict_why: str

    @property
    def excluded(self) -> frozenset[int]:
        """Indices of the pairs that no metric counts; none where fewer than two pairs would remain."""
        enough = len(self.pairs) - len(self.contaminated) >= 2
        return frozenset(self.contaminated) if enough else frozenset()

    @property
    def undisturbed(self) -> list[tuple[float, float]]:
        """The pairs that the metrics count, in the order measured."""
        return [pair for i, pair in enumerate(self.pairs) if i not in self.excluded]

    @property
    def ratios(self) -> list[float]:
        """The paired ratios, baseline / candidate, that the speedup is the median of."""
        return [baseline / candidate for baseline, candidate in self.undisturbed]


class Memory(Part):
    """Peaks of an isolated pass, in bytes; idle values are taken before the model is loaded."""

    rss_peak: int | None  # resident in the host's memory
    rss_idle: int | None
    torch_allocated_peak: int | None  # in tensors on the device
    torch_reserved_peak: int | None  # by torch's allocator there
    nvml_device_peak: int | None  # of all processes; sampled, hence a lower bound
    nvml_device_idle: int | None
    nvml_process_peak: int | None
    sampler_samples: int | None  # how often nvml_device_peak was sampled
    sampler_cpu_share: float | None  # what that cost: CPU seconds / wall seconds, of one core
    cache_bytes: int  # of the tensors that the method's cache holds after a generation
    energy_j: float | None  # the device's for a whole generation, the mean over 1 s or more
    missing: dict[str, str]  # field -> why it is null


class Worst(Part):
    """One of the images that lie furthest from the baseline's."""

    index: int  # image number within the run
    seed: int
    label: str
    drift: float
    psnr_db: float | None  # null where the images are identical (infinite)


class Distance(Part):
    """A distributional distance with all that it depends on."""

    fd: float  # Fréchet distance; it may be called FID only with Inception features
    kid: Mean | None  # kernel distance over disjoint blocks
    # To the reference alone, see `bench.measure.jackknife`; null in older records.
    fd_unbiased: Mean | None = None  # without the bias of n
    fd_change: Mean | None = None  # less the baseline's, of the same seeds
    kid_change: Mean | None = None
    # Near 1 against the baseline's images of the same seeds: each image has its counterpart there.
    precision: float | None  # share of the generated images that lie among the reference's
    recall: float | None  # share of the reference's images that lie among the generated
    extractor: str
    reference: str  # a description of what it is measured against
    n: int  # generated images
    n_reference: int | None  # null where the reference is statistics that do not state it
    missing: dict[str, str] = {}  # field -> why it is null


class Quality(Part):
    """Against the baseline with the same seeds, the converged trajectory, and reference images."""

    n: int
    drift: Mean  # relative L2 of the final latent against the baseline's
    drift_per_image: list[float]
    psnr_db: Mean | None  # null where every image is identical
    ssim: Mean
    lpips: Mean | None  # perceptual distance by VGG16, 0 = equal; null without its weights
    # Cosine of image and own prompt by `text_scorer` (CLIP: 100 times it, at least 0); null of class labels.
    text_score: Mean | None = None
    baseline_text_score: Mean | None = None
    text_score_change: Mean | None = None  # the method's minus the baseline's, image by image
    text_score_per_image: list[float] = []
    baseline_text_score_per_image: list[float] = []
    own_prompt_wins: float | None = None  # share of the other prompts that an image fits less than its own
    text_scorer: str | None = None
    drift_converged: Mean | None  # against the same noise solved as `config.quality` states
    baseline_drift_converged: Mean | None  # the baseline's own, on the same images
    # Image by image, [n_converged] each: what a claim of no loss is made from. Empty in older records.
    drift_converged_per_image: list[float] = []
    baseline_drift_converged_per_image: list[float] = []
    n_converged: int
    to_reference: Distance | None
    to_baseline: Distance | None
    identical: bool  # every latent bit-identical to the baseline's
    latents_sha256: str  # of the candidate's latents: equal digests mean identical images
    worst: list[Worst]  # furthest first
    # PNG in the record's directory: row 0 baseline, row 1 candidate, worst first.
    image: str | None
    image_sha256: str | None = None  # of its pixels, see `bench.store.images`; null in older records
    missing: dict[str, str]  # field -> why it is null


class Reuse(Part):
    """What was reused; `map` is steps x layers of one generation, the last one measured."""

    ratio: float  # attention calls that were reused, or skipped with their step / all attention calls
    plan_ratio: float | None  # what the data-independent rules allow
    map: list[list[int]]  # 1 = reused
    # nats, steps x layers, null where not measured; of two untimed images where no gate needs it
    entropy: list[list[float | None]] | None
    snr: list[float]  # one a step
    # Why calls were computed or reused -> count.
    reasons: dict[str, int]
    # Share of the steps that ran the conditional branch only.
    conditional_only: float = 0.0
    # Share of the steps that did not run, their output a forecast.
    skipped: float = 0.0
    resolved: dict[str, Any] = {}  # options that were found by measuring the current model


class Limits(Part):
    """What counted FLOPs allow, those of the baseline over the method's, and the share that was realised."""

    flops_generation: float  # of one baseline generation of the batch, decoder included
    attention_share: float  # attention's share of those FLOPs
    speedup_limit: float
    # Null from here on where nothing was timed.
    realised: float | None = None  # (speedup - 1) / (limit - 1); null where the limit is 1
    flops_per_second: float | None = None  # the baseline's
    mfu: float | None = None  # flops_per_second / peak: the baseline's model-FLOPs utilisation
    peak: float | None = None  # FLOP/s
    peak_source: str | None = None  # the vendor's data sheet, or a matrix product measured on the spot


class Record(Part):
    """One run: one configuration of one suite on one machine."""

    schema_version: int = SCHEMA_VERSION
    key: str  # hash of spec, sources, model files and machine: what the result depends on
    digest: str = ""  # of the rest of this record, set on writing; `bench validate` checks it
    suite: str
    name: str
    method: str
    config: dict[str, Any]  # the RunSpec as resolved
    # skipped: nothing could be learned from it with the current weights
    status: Literal["ok", "failed", "skipped"]
    reason: str | None = None  # one line, for a run that is not ok
    traceback: str | None = None
    environment: dict[str, Any] = Field(default_factory=dict)  # provenance, state, and the key's inputs
    timing: Timing | None = None
    memory: Memory | None = None
    quality: Quality | None = None
    reuse: Reuse | None = None
    limits: Limits | None = None


def field_kinds(path: str) -> tuple[Any, ...]:
    """The types that a dotted field of a record may have.

    Args:
        path: Such as `timing.speedup`.

    Returns:
        Each type of the field's annotation.

    Raises:
        ValueError: The first part of the path that is no field, and what is allowed.
    """
    kinds: tuple[Any, ...] = (Record,)
    for name in path.split("."):
        part = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        fields = part.model_fields if part else {}
        if name not in fields:
            raise ValueError(
                f"{path!r}: no field {name!r}; allowed: {', '.join(fields) or 'nothing below it'}"
            )
        annotation = fields[name].annotation
        kinds = getattr(annotation, "__args__", (annotation,))
    return kinds
