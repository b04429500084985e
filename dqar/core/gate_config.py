"""`GateConfig`: when reuse is allowed at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from dqar.config_needs import (
    ENTROPY_GATE,
    GATED,
    LAYERS,
    NO_PLAN,
    POLICY,
    PROMPT_SCALING,
    SKIPPED_STEPS,
    THRESHOLDS,
)
from dqar.config_option import changed, check_fields, defaults, option, without_effect
from dqar.errors import invalid_value
from dqar.utils.warn import warn
from dqar.validation import count, each_layer, finite, flag, optional, share, text, threshold

# Fields without effect that were warned about before, while `replace` makes a copy of their configuration.
_warned: ContextVar[frozenset[str]] = ContextVar("_warned", default=frozenset())

_GATE = "reuse_gate"


@dataclass(frozen=True, kw_only=True, repr=False)
class GateConfig:
    """When reuse is allowed at all. An infinite threshold (0 for a lower bound) switches its gate off.

    What each field does, allows and needs stands in its `option`, and in the README's table.

    Raises:
        InvalidValue: With the field, the value and what is allowed.
    """

    entropy_threshold: float = option(
        math.inf,
        threshold(),
        _GATE,
        """A layer is reused only while its attention entropy, in nats, is below this. Off by default (the
        original specification: 2.0): SNR predicts the reuse error better (`python -m bench signals`), and the
        same number of nats means something else on another model.""",
        needs=(THRESHOLDS, LAYERS),
    )
    snr_low: float = option(
        0.1,
        threshold(),
        _GATE,
        "Reuse only at steps whose signal-to-noise ratio is at least this.",
        needs=(THRESHOLDS, NO_PLAN, GATED),
        neutral=(0.0,),
    )
    snr_high: float = option(
        math.inf,
        threshold(),
        _GATE,
        """Reuse only at steps whose signal-to-noise ratio is at most this. Off by default (the original
        specification: 10.0): on the embedded model 28 % of the calls are reused without it and 20 % with it
        (suite `snr`); with forecast outputs nothing measurable is lost without it.""",
        needs=(THRESHOLDS, NO_PLAN, GATED),
    )
    adaptive_entropy: bool = option(
        True,
        flag(),
        _GATE,
        "Scale the entropy threshold by sqrt(prompt_length / base_prompt_length).",
        needs=(ENTROPY_GATE,),
    )
    base_prompt_length: int = option(
        77,
        count(1),
        _GATE,
        "Prompt tokens at which the entropy threshold is not scaled.",
        needs=(ENTROPY_GATE, PROMPT_SCALING),
    )
    prompt_length: int | None = option(
        None,
        optional(count(1)),
        _GATE,
        "Prompt tokens; None = as many as the model is given, padding included (constant where a pipeline"
        " pads to one length, whatever the prompt), or the base where it has no prompt.",
        needs=(ENTROPY_GATE, PROMPT_SCALING),
    )
    entropy_scales: tuple[float, ...] | None = option(
        None,
        optional(each_layer(finite())),
        _GATE,
        "A factor on the entropy threshold for each layer; None = 1 everywhere.",
        needs=(ENTROPY_GATE,),
    )
    warmup_steps: int = option(
        5,
        count(0),
        _GATE,
        "Steps at the start that reuse nothing.",
        needs=(NO_PLAN, GATED),
        neutral=(0,),
    )
    warmup_fraction: float = option(
        0.2,
        share(below_one=True),
        _GATE,
        "Share of the steps at the start that reuse nothing; both warm-ups hold.",
        needs=(NO_PLAN, GATED),
        neutral=(0.0,),
    )
    max_age: int | None = option(
        1,
        optional(count(1)),
        _GATE,
        """Steps for which a cache entry is reused before it is computed again; None = without bound. 1 by
        default (the original specification has no bound): without it the drift is seven times as high (suite
        `gate`).""",
        needs=(NO_PLAN, LAYERS),
        neutral=(None,),
    )
    deviation_tolerance: float = option(
        math.inf,
        threshold(),
        "reuse",
        """Run a step that would be skipped, where the last forecast of an output was off by more than this
        many times what the saved plan's calibration measured there. Without a plan: by more than this share
        of the output. Costs a host sync for each step that runs; infinite = never compare.""",
        needs=(SKIPPED_STEPS,),
    )
    plan_path: str | None = option(
        None,
        optional(text("the path of a file")),
        "reuse",
        """A plan's file, as `python -m bench calibrate` writes it. It replaces warm-up, SNR window, layer
        schedule, age, the two intervals, `model_steps`, and the fields that it names itself; what the data
        forbid stays forbidden. None = by those.""",
    )
    use_learned_policy: bool = option(
        False,
        flag(),
        "policy",
        "Let the policy of `policy_path` decide in place of the entropy and SNR thresholds.",
        key="enabled",
        needs=(LAYERS,),
    )
    policy_path: str | None = option(
        None,
        optional(text("the path of a directory")),
        "policy",
        "The learned policy's directory, as `ReusePolicy.save` writes it.",
        key="checkpoint_path",
        needs=(POLICY,),
    )
    reuse_threshold: float | None = option(
        0.5,
        optional(share()),
        "policy",
        "The policy's probability from which a layer is reused; None = the one found in training.",
        needs=(POLICY,),
    )

    def __post_init__(self) -> None:
        check_fields(type(self), {name: getattr(self, name) for name in defaults(type(self))})
        self._check_together()
        inert = without_effect(self)
        for name in sorted(inert.keys() - _warned.get()):
            warn(inert[name])

    def _check_together(self) -> None:
        """Refuse fields that contradict each other."""
        if self.snr_low > self.snr_high:
            raise invalid_value("snr_low", self.snr_low, f"at most snr_high = {self.snr_high}")
        if self.use_learned_policy and self.policy_path is None:
            raise invalid_value("policy_path", None, "a policy's directory, with use_learned_policy = True")

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in changed(self).items())
        return f"{type(self).__name__}({fields})"

    @property
    def entropy_gate(self) -> bool:
        """Whether entropy can forbid a reuse."""
        return math.isfinite(self.entropy_threshold) and not self.use_learned_policy

    @property
    def needs_entropy(self) -> bool:
        """Whether a decision waits for entropy."""
        return self.entropy_gate or self.use_learned_policy


@contextmanager
def warned_before(names: Iterable[str]) -> Iterator[None]:
    """Within the context, configurations do not warn again of these fields.

    Args:
        names: Fields of a `GateConfig`; other fields warn as ever.
    """
    token = _warned.set(frozenset(names))
    try:
        yield
    finally:
        _warned.reset(token)
