"""What the runs of a suite share: the model, how it is timed, and which images are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bench.spec.part import SuitePart
from bench.spec.prompts import PromptFile

FILES = (
    "inception_weights",
    "reference",
    "lpips_weights",
    "clip_weights",
)  # fields of QualitySettings that are paths
FEWEST_PAIRS = 2  # of which a speedup has an interval
LONGEST_S = 7 * 24 * 3600.0  # a week: a limit that is none would hide a hang
LONGEST_NAME = 128  # characters: with its key it is a file's, of at most 255
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$", max_length=LONGEST_NAME)]
File = Annotated[str, Field(min_length=1)]  # a path, relative to where the harness is started


class TimingSettings(SuitePart):
    """How long a configuration is timed, and when its speedup counts as one; of 0 pairs, not at all."""

    min_pairs: int = Field(default=5, ge=0, le=100_000)
    max_pairs: int = Field(default=100, ge=0, le=100_000)
    target_halfwidth: float = Field(default=0.02, gt=0, lt=1)  # of the interval, relative
    budget_s: float = Field(default=60, gt=0, le=LONGEST_S)  # for the pairs beyond min_pairs
    warmup: int = Field(default=1, ge=0, le=1000)  # generations of each arm
    together: int = Field(
        default=1, ge=1, le=100
    )  # configurations that share a process and each round's baseline
    verdict_threshold: float = Field(default=0.02, gt=0, lt=1)

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max_pairs < self.min_pairs:
            raise ValueError(f"max_pairs {self.max_pairs} is below min_pairs {self.min_pairs}")
        if self.max_pairs and self.min_pairs < FEWEST_PAIRS:
            few = f"min_pairs {self.min_pairs} is not allowed with max_pairs {self.max_pairs}"
            raise ValueError(f"{few}; allowed: {FEWEST_PAIRS} or more, or 0 of both: nothing is timed")
        return self

    @property
    def asked(self) -> bool:
        """Whether anything is timed."""
        return self.max_pairs > 0


class QualitySettings(SuitePart):
    """Which images are compared, and with what."""

    n: int = Field(default=64, ge=0, le=10**6)  # images; 0 = time and memory only
    converged_n: int = Field(default=16, ge=0, le=10**6)
    # What solves the converged trajectory: DPM-Solver++ or UniPC of the second order, the last step halved
    # down to timestep 0 (see `bench.measure.converged`), or the baseline's own solver.
    converged_solver: Literal["dpm_solver++", "unipc", "own"] = "dpm_solver++"
    converged_steps: int = Field(default=100, ge=2, le=1000)
    extractor: Literal["embedded"] | None = "embedded"
    worst: int = Field(default=3, ge=1, le=64)  # images kept with a record, furthest from the baseline's
    # Files that do not ship with the harness, see `bench.spec.external_files`; null: what needs them is null.
    inception_weights: File | None = None  # torch-fidelity's: in place of `extractor`, makes FD FID
    reference: File | None = None  # a directory of images, or an .npz as ADM publishes them
    lpips_weights: File | None = None  # a directory with torch-fidelity's; null: torch hub's cache
    clip_weights: File | None = None  # a directory with transformers' CLIP: makes the text score a CLIP score

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.converged_n > self.n:
            raise ValueError(f"converged_n {self.converged_n} is above n {self.n}")
        return self

    def files(self) -> dict[str, Path]:
        """The files that the settings name.

        Returns:
            Paths as given, by field; those that are not null.
        """
        named = {field: getattr(self, field) for field in FILES}
        return {field: Path(path) for field, path in named.items() if path is not None}

    def public(self) -> dict[str, Any]:
        """The settings as a record holds them.

        Returns:
            All fields; of each path the last part.
        """
        shown = self.model_dump() | {field: path.resolve().name for field, path in self.files().items()}
        if self.clip_weights is None:  # as before there was the field
            del shown["clip_weights"]
        return shown


class CallSettings(SuitePart):
    """Arguments of the pipeline's call beyond those that every pipeline has; null: its own default."""

    true_cfg_scale: float | None = Field(default=None, ge=1, le=1000)  # in addition to distilled guidance
    height: int | None = Field(default=None, ge=8, le=16384)  # pixels
    width: int | None = Field(default=None, ge=8, le=16384)
    num_frames: int | None = Field(default=None, ge=1, le=10_000)  # of a video
    max_sequence_length: int | None = Field(default=None, ge=1, le=10_000)  # tokens of a prompt

    def given(self) -> dict[str, Any]:
        """The arguments that the suite sets.

        Returns:
            Those that are not null, by name.
        """
        return self.model_dump(exclude_none=True)


class Settings(SuitePart):
    """What all runs of a suite share."""

    # "embedded" (class labels), "embedded-t2i" (prompts), a directory, or a hub id
    model: str = Field(min_length=1, max_length=1000)
    random: bool = False  # fall back on random weights (time and memory only)
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    scheduler: Literal["ddim", "dpm_solver++", "unipc"] | None = None  # None = the model's own
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = None  # None = the model's own
    num_inference_steps: int = Field(default=50, ge=1, le=1000)
    guidance_scale: float = Field(default=4.0, ge=0, le=1000)  # classifier-free, or distilled
    batch_size: int = Field(default=16, ge=1, le=4096)
    labels: Literal["cycle"] | list[Annotated[int, Field(ge=0, lt=1000)]] = "cycle"
    prompts: PromptFile | None = None  # of a model that takes prompts: image i has prompt i mod their number
    call: CallSettings = CallSettings()
    seed: int = Field(default=0, ge=0, lt=2**62)  # image i has seed + i
    timing: TimingSettings = TimingSettings()
    quality: QualitySettings = QualitySettings()
    memory: bool = True
    compile: bool = False  # both arms under torch.compile(fullgraph=True)
    cuda_graphs: bool = False  # and replayed as CUDA graphs (mode="reduce-overhead")
    timeout_s: float = Field(default=600, gt=0, le=LONGEST_S)

    @model_validator(mode="after")
    def _solved_finer(self) -> Self:
        finer, steps = self.quality.converged_steps, self.num_inference_steps
        if self.quality.converged_n and finer < steps:
            raise ValueError(f"quality.converged_steps {finer} is below num_inference_steps {steps}")
        return self

    @model_validator(mode="after")
    def _graphs(self) -> Self:
        if self.cuda_graphs and not self.compile:
            raise ValueError("cuda_graphs needs compile: true")
        return self
