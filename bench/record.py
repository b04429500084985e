"""The one immutable result of a run: what a worker writes, and all that a report may read.

A record is one JSON file, `results/<suite>/<machine>/<name>-<key>.json`, with the keys of `Record`.
Every figure that has an interval is `{"median" or "mean": x, "low": l, "high": h}` (95 %). A figure
that could not be measured is null, and the `missing` of its part says why, never 0. Each part of the
schema says below what its fields mean; those that a name says in full, and their unit (`_s`, `_j`,
`_db`), have no comment. Any change of a field's name or meaning raises SCHEMA_VERSION; a field that is
added has a default that is true of the records before it, which stay as they are.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Target = Literal["baseline", "converged"]  # what a drift is from

# 2: lpips, and of a distance precision, recall and `missing`; its kid and n_reference may be null.
SCHEMA_VERSION = 2


class Part(BaseModel):
    """A part of a record: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Median(Part):
    """A median with its bootstrap 95 % interval."""

    median: float
    low: float
    high: float


class Mean(Part):
    """A mean with its bootstrap 95 % interval."""

    mean: float
    low: float
    high: float


class Timing(Part):
    """Whole generations, baseline and candidate in turn on the same inputs."""

    speedup: Median  # baseline seconds / candidate seconds, over the undisturbed pairs
    baseline_s: Median  # seconds a generation of `batch_size` pictures
    candidate_s: Median
    pairs: list[tuple[float, float]]  # raw (baseline, candidate) seconds, in the order measured
    disturbed: list[int]  # indices of `pairs` that are kept but left out, see `disturbed_why`
    disturbed_why: list[str]
    baseline: str  # what the speedup is over: "eager", "compiled", "compiled with CUDA graphs"
    batch_size: int
    beside: list[str] = []  # configurations of the same rounds: their pairs have the same baseline seconds
    stopped: Literal["target", "budget", "pairs"]  # why no more pairs were measured
    verdict: Literal["SAME", "FASTER", "SLOWER", "AMBIGUOUS"]
    verdict_why: str


class Memory(Part):
    """Peaks of an isolated pass, in bytes; idle figures are taken before the model is loaded."""

    rss_peak: int | None  # resident in the host's memory, as the kernel counts it
    rss_idle: int | None
    torch_allocated_peak: int | None  # in tensors on the device
    torch_reserved_peak: int | None  # by torch's allocator there
    nvml_device_peak: int | None  # of all processes; sampled, hence a lower bound
    nvml_device_idle: int | None
    nvml_process_peak: int | None
    sampler_samples: int | None  # how often nvml_device_peak was looked at
    sampler_cpu_share: float | None  # what that cost: CPU seconds / wall seconds, of one core
    cache_bytes: int  # of the tensors that the method's cache holds after a generation
    energy_j: float | None  # the device's for a whole generation, the mean over 1 s or more
    missing: dict[str, str]  # field -> why it is null


class Worst(Part):
    """One of the pictures that lie furthest from the baseline's."""

    index: int  # picture number within the run
    seed: int
    label: str
    drift: float
    psnr_db: float | None  # null where the pictures are identical (infinite)


class Distance(Part):
    """A distributional distance with all that it depends on."""

    fd: float  # Fréchet distance; it may be called FID only with Inception features
    kid: Mean | None  # kernel distance over disjoint blocks
    # Against the baseline's pictures of the same seeds precision and recall are near 1 from the
    # start, for each picture has its like there.
    precision: float | None  # share of the generated pictures that lie among the reference's
    recall: float | None  # share of the reference's pictures that lie among the generated
    extractor: str
    reference: str  # what it is measured against, in words
    n: int  # generated pictures
    n_reference: int | None  # null where the reference is statistics that do not say
    missing: dict[str, str] = Field(default_factory=dict)  # field -> why it is null


class Quality(Part):
    """Against the baseline with the same seeds, the converged trajectory, and reference pictures."""

    n: int
    drift: Mean  # relative L2 of the final latent against the baseline's
    drift_per_image: list[float]
    psnr_db: Mean | None  # null where every picture is identical
    ssim: Mean
    lpips: Mean | None  # perceptual distance by VGG16, 0 = equal; null without its weights
    drift_converged: Mean | None  # against the same noise solved with 10 times the steps
    baseline_drift_converged: Mean | None  # the baseline's own, on the same pictures
    n_converged: int
    to_reference: Distance | None
    to_baseline: Distance | None
    identical: bool  # every latent bit-identical to the baseline's
    latents_sha256: str  # of the candidate's latents: equal digests mean identical pictures
    worst: list[Worst]  # furthest first
    picture: str | None  # PNG beside the record: row 0 baseline, row 1 candidate, worst first
    missing: dict[str, str]


class Reuse(Part):
    """What was reused; `map` is steps x layers of one generation, the last one measured."""

    ratio: float  # attention calls that were reused, or left out with their step / all attention calls
    plan_ratio: float | None  # what the data-independent rules allow
    map: list[list[int]]  # 1 = reused
    # nats, steps x layers, null where not measured; of an untimed generation of two pictures where
    # no gate needs it
    entropy: list[list[float | None]] | None
    snr: list[float]  # one a step
    reasons: dict[str, int]  # why calls were computed or reused -> count
    alone: float = 0.0  # share of the steps that ran without the unconditional branch
    foretold: float = 0.0  # share of the steps that did not run, their output foretold
    resolved: dict[str, Any] = {}  # options that were found by measuring the model at hand


class Limits(Part):
    """What counted FLOPs allow, those of the baseline over the method's, and the share that was realised."""

    flops_generation: float  # of one baseline generation of the batch, decoder included
    attention_share: float  # attention's share of those FLOPs
    speedup_limit: float
    realised: float | None  # (speedup - 1) / (limit - 1); null where the limit is 1
    flops_per_second: float  # the baseline's
    mfu: float  # flops_per_second / peak: the baseline's model-FLOPs utilisation
    peak: float  # FLOP/s
    peak_source: str  # the vendor's data sheet, or a matrix product measured on the spot


class Record(Part):
    """One run: one configuration of one suite on one machine."""

    schema_version: int = SCHEMA_VERSION
    key: str  # hash of spec, sources, model files and machine: what the result depends on
    digest: str = ""  # of the rest of this record, set on writing: `bench validate` checks it
    suite: str
    name: str
    method: str
    config: dict[str, Any]  # the RunSpec as resolved
    status: Literal["ok", "failed", "left_out"]  # left out: would say nothing under the weights at hand
    reason: str | None = None  # one line, for a run that is not ok
    traceback: str | None = None
    environment: dict[str, Any] = Field(default_factory=dict)  # provenance, state, and the key's inputs
    timing: Timing | None = None
    memory: Memory | None = None
    quality: Quality | None = None
    reuse: Reuse | None = None
    limits: Limits | None = None


def field_kinds(path: str) -> tuple[Any, ...]:
    """The types that a dotted field of a record may have. ValueError naming the first part of the path that
    is no field, and what is allowed."""
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
