"""What a field needs of the others to have an effect, of a `DQARConfig` or of one of its bases."""

from __future__ import annotations

from typing import Any

from dqar.config_option import Need

POLICY = Need("use_learned_policy = True", lambda c: c.use_learned_policy)
THRESHOLDS = Need("use_learned_policy = False", lambda c: not c.use_learned_policy)
NO_PLAN = Need("plan_path = None", lambda c: c.plan_path is None)
ENTROPY_GATE = Need("a finite entropy_threshold with use_learned_policy = False", lambda c: c.entropy_gate)
PROMPT_SCALING = Need("adaptive_entropy = True", lambda c: c.adaptive_entropy)
ENTROPY_MEASURED = Need(
    "a finite entropy_threshold, use_learned_policy or trace_entropy",
    lambda c: c.needs_entropy or c.trace_entropy,
)
ENTROPY_DECIDES = Need("a finite entropy_threshold or use_learned_policy", lambda c: c.needs_entropy)
NO_TRACE = Need("trace_entropy = False", lambda c: not c.trace_entropy)
SCHEDULE = Need("use_layer_scheduling = True", lambda c: c.use_layer_scheduling)
SCHEDULE_WITH_PLAN = Need(
    "plan_path = None or schedule_type = 'adaptive'",
    lambda c: c.plan_path is None or c.schedule_type == "adaptive",
)
NOT_CUSTOM = Need("a schedule_type other than 'custom'", lambda c: c.schedule_type != "custom")
PHASES = Need("schedule_type = 'step'", lambda c: c.schedule_type == "step")
ADAPTIVE = Need("schedule_type = 'adaptive'", lambda c: c.schedule_type == "adaptive")
MODEL_STEPS = Need("model_steps", lambda c: c.model_steps is not None)
NO_MODEL_STEPS = Need("model_steps = None", lambda c: c.model_steps is None)
QUANTIZED = Need("quantization_bits below 16", lambda c: min(_as_tuple(c.quantization_bits)) < 16)


def _is_base_alone(c: Any) -> bool:
    """Whether it is a base of `DQARConfig`: what else its user does is not known, so nothing counts as
    missing."""
    return not hasattr(c, "model_steps")


def _reuses_layers(c: Any) -> bool:
    if _is_base_alone(c):
        return True
    if not c.use_layer_scheduling or c.schedule_type == "custom" or c.plan_path is not None:
        return True
    return bool(c.layer_fraction > 0)


def _skips_steps(c: Any) -> bool:
    return _is_base_alone(c) or c.plan_path is not None or c.model_steps is not None or c.step_interval > 1


def _skips_branches(c: Any) -> bool:
    return _skips_steps(c) or c.guidance_interval > 1


def _gates(c: Any) -> bool:
    return _reuses_layers(c) or (c.model_steps is None and _skips_branches(c))


def _reuses_attention(c: Any) -> bool:
    return c.plan_path is not None or any(target != "mlp" for target in _as_tuple(c.targets))


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


LAYERS = Need("layers to reuse (layer_fraction above 0)", _reuses_layers)
ATTENTION = Need("targets with attention", _reuses_attention)
GATED = Need("layers to reuse (layer_fraction above 0), step_interval or guidance_interval", _gates)
SKIPPED_STEPS = Need(
    "skipped steps (model_steps, step_interval or plan_path)",
    _skips_steps,
)
SKIPPED_OUTPUTS = Need(
    "skipped steps or branches (model_steps, step_interval, guidance_interval or plan_path)", _skips_branches
)
FORECASTS = Need(
    "forecast_order above 0 with layers to reuse, or skipped steps or branches",
    lambda c: (c.forecast_order > 0 and _reuses_layers(c)) or _skips_branches(c),
)
BOTH_HALVES = Need("guidance_interval = 1", lambda c: c.guidance_interval == 1)
