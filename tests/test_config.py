"""Every field of the configuration is live, and a bad value is refused in one clear line."""

from __future__ import annotations

import dataclasses
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build_tiny_pipeline, generate
from diffusers import DiTPipeline

import dqar
from dqar import DQARConfig, config_table
from dqar.config import BALANCED, PRESETS
from dqar.config_option import options
from dqar.errors import DQARError, DQARWarning, short_repr
from dqar.policy.mlp_policy import ReusePolicy
from dqar.policy.saved_plan import SavedPlan

GATED = {"entropy_threshold": 2.72, "entropy_stride": 1}  # amid the tiny model's 2.70 to 2.73 nats
POLICY = {"policy_path": "POLICY:0"}  # stands for a directory that the test makes

# Field -> (what else is set, one value, another value): the two must differ in what they do.
LIVE: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "num_layers": ({}, 28, 3),
    "num_heads": (GATED, 16, 1),
    "entropy_threshold": ({}, math.inf, 0.5),
    "snr_low": ({}, 0.0, 1.0),
    "snr_high": ({}, math.inf, 1.0),
    "adaptive_entropy": ({**GATED, "prompt_length": 19}, True, False),
    "base_prompt_length": ({**GATED, "prompt_length": 77}, 77, 300),
    "prompt_length": (GATED, None, 19),
    "entropy_scales": ({"entropy_threshold": 4.0}, None, (1.0, 0.1, 1.0, 0.1, 1.0, 1.0)),
    "entropy_stride": ({"entropy_threshold": 2.72}, 1, 8),
    "entropy_interval": ({"entropy_threshold": 2.72}, 1, 4),
    "trace_entropy": ({}, False, True),
    "warmup_steps": ({}, 0, 8),
    "warmup_fraction": ({}, 0.2, 0.6),
    "use_layer_scheduling": ({}, True, False),
    "schedule_type": ({}, "linear", "step"),
    "layer_fraction": ({}, 1.0, 0.5),
    "early_phase_end": ({"schedule_type": "step"}, 0.3, 0.6),
    "mid_phase_end": ({"schedule_type": "step"}, 0.7, 0.9),
    "custom_schedule": ({"schedule_type": "custom"}, (0.5,) * 6, (0.5, 0.9) * 3),
    "deep_layer_snr_threshold": ({"use_layer_scheduling": False}, None, 1.0),
    "adaptive_tolerance": ({"schedule_type": "adaptive"}, 0.01, 0.5),
    "probe_interval": ({"schedule_type": "adaptive", "adaptive_tolerance": math.inf}, 3, 5),
    "cfg_sharing": ({}, False, True),
    "use_learned_policy": (POLICY, False, True),
    "policy_path": ({"use_learned_policy": True}, "POLICY:0", "POLICY:1"),
    "reuse_threshold": ({"use_learned_policy": True} | POLICY, 0.0, 1.0),
    "max_age": ({}, None, 1),
    "targets": ({}, "attention", ("attention", "mlp", "both") * 2),
    "forecast_order": ({"max_age": 2}, 0, 1),
    "forecast_over": ({"max_age": 2, "forecast_order": 1}, "log_snr", "step"),
    "step_interval": ({}, 1, 2),
    "model_steps": ({}, None, 5),
    "log_snr_share": ({"model_steps": 5}, 0.0, 1.0),
    "guidance_interval": ({}, 1, 2),
    "output_order": ({"step_interval": 2}, 1, 2),
    "output_correction": ({"step_interval": 2}, 0.5, 0.0),
    "deviation_tolerance": ({"step_interval": 2}, math.inf, 0.0),
    "plan_path": ({}, None, "PLAN"),
    "reuse_mode": ({}, "output", "kv"),
    "quantization_mode": ({}, "per_tensor", "per_channel"),
    "quantization_bits": ({}, 8, 4),
}


def observe(pipe: DiTPipeline, **fields: Any) -> tuple[bytes, ...]:
    """All that the preset `maximum` does with these fields: latents, decisions and entropies of one run."""
    return observed(pipe, DQARConfig.preset("maximum", **fields))


def observed(pipe: DiTPipeline, config: DQARConfig) -> tuple[bytes, ...]:
    dqar.enable(pipe, config)
    latents = generate(pipe)
    summary = dqar.summary(pipe)
    return latents.numpy().tobytes(), summary.map.tobytes(), np.nan_to_num(summary.entropy).tobytes()


def test_every_field_has_a_test_that_it_is_live() -> None:
    """No field can be added without a test that it is live."""
    fields = {field.name for field in dataclasses.fields(DQARConfig)}
    assert fields == set(LIVE)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Placeholder -> a policy's directory (the first for every reuse, the second against), or a plan."""
    paths = {}
    for seed, certainty in enumerate((0.4, -20.0)):
        policy = ReusePolicy()
        last: Any = policy.net[-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, certainty)
        paths[f"POLICY:{seed}"] = str(tmp_path_factory.mktemp("policy"))
        policy.save(paths[f"POLICY:{seed}"])
    plan = SavedPlan(np.arange(10)[:, None].repeat(6, 1) % 2 == 1, np.full(10, 2, dtype=np.int8))
    paths["PLAN"] = str(tmp_path_factory.mktemp("plan") / "plan.json")
    plan.save(paths["PLAN"])
    return paths


@pytest.mark.parametrize("field", LIVE)
def test_every_field_changes_a_decision_or_an_output(
    pipe: DiTPipeline, field: str, policies: dict[str, str]
) -> None:
    """Changing the one field changes the latents, the decisions or the measured entropies."""
    others, one, another = LIVE[field]
    others = {
        name: policies.get(value, value) if isinstance(value, str) else value
        for name, value in others.items()
    }
    one, another = (policies.get(v, v) if isinstance(v, str) else v for v in (one, another))
    assert observe(pipe, **others, **{field: one}) != observe(pipe, **others, **{field: another})


# Surroundings, and in them fields that were changed without effect.
WITHOUT_EFFECT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {},
        {
            "schedule_type": "linear", "layer_fraction": 0.2, "early_phase_end": 0.2, "mid_phase_end": 0.6,
            "adaptive_tolerance": 0.3, "probe_interval": 5, "adaptive_entropy": False,
            "base_prompt_length": 100, "prompt_length": 40, "entropy_scales": (0.5,) * 6, "entropy_stride": 3,
            "entropy_interval": 2, "policy_path": "POLICY:1", "reuse_threshold": 0.9, "log_snr_share": 0.4,
            "output_order": 2, "output_correction": 0.2, "deviation_tolerance": 0.5,
        },
    ),
    ({}, {"schedule_type": "custom", "custom_schedule": (2.0,) * 6}),
    ({"forecast_order": 0}, {"forecast_over": "step"}),
    ({"use_layer_scheduling": True, "layer_fraction": 0.0}, {"forecast_over": "step"}),
    (
        {"use_layer_scheduling": True, "schedule_type": "custom", "custom_schedule": (0.4,) * 6},
        {"layer_fraction": 0.2, "early_phase_end": 0.2, "mid_phase_end": 0.6, "adaptive_tolerance": 0.3},
    ),
    ({"model_steps": 5}, {"step_interval": 3}),
    (
        {"use_layer_scheduling": True, "layer_fraction": 0.0},
        {
            "entropy_threshold": 2.0, "snr_low": 0.5, "snr_high": 5.0, "warmup_steps": 8,
            "warmup_fraction": 0.6, "max_age": 3, "deep_layer_snr_threshold": 1.0, "targets": "both",
            "forecast_order": 2, "reuse_mode": "kv", "cfg_sharing": True, "quantization_bits": 4,
            "quantization_mode": "per_channel",
        },
    ),
    (
        {"use_layer_scheduling": True, "layer_fraction": 0.0, "policy_path": "POLICY:0"},
        {"use_learned_policy": True},
    ),
    (
        {"use_learned_policy": True, "policy_path": "POLICY:0"},
        {"entropy_threshold": 0.5, "snr_low": 0.5, "snr_high": 5.0, "adaptive_entropy": False},
    ),
    (
        {"plan_path": "PLAN"},
        {
            "snr_low": 0.5, "snr_high": 5.0, "warmup_steps": 8, "warmup_fraction": 0.6, "max_age": 3,
            "use_layer_scheduling": True, "schedule_type": "linear", "layer_fraction": 0.5,
            "deep_layer_snr_threshold": 1.0, "step_interval": 2, "model_steps": 5, "log_snr_share": 0.4,
            "guidance_interval": 2,
        },
    ),
    ({"quantization_bits": 16}, {"quantization_mode": "per_channel"}),
    ({"targets": "mlp"}, {"reuse_mode": "kv"}),
    ({"guidance_interval": 2}, {"cfg_sharing": True}),
    (GATED | {"trace_entropy": True}, {"entropy_interval": 3}),
    (GATED | {"adaptive_entropy": False}, {"base_prompt_length": 100, "prompt_length": 40}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "changes"), WITHOUT_EFFECT)
def test_fields_without_effect_are_named_and_change_nothing(
    pipe: DiTPipeline, given: dict[str, Any], changes: dict[str, Any], policies: dict[str, str]
) -> None:
    """Each of these fields is named by a warning at this file's line, and truly nothing changes with them."""

    def config(fields: dict[str, Any]) -> DQARConfig:
        filled: dict[str, Any] = {
            k: policies.get(v, v) if isinstance(v, str) else v for k, v in fields.items()
        }
        return DQARConfig(**filled)

    with warnings.catch_warnings(record=True) as before:
        warnings.simplefilter("always")
        expected = config(given)
    with pytest.warns(DQARWarning) as caught:
        changed = config(given | changes)
    names = {str(w.message).partition(" = ")[0] for w in caught} - {
        str(w.message).partition(" = ")[0] for w in before
    }
    assert names == changes.keys() and all(w.filename == __file__ for w in caught)
    assert observed(pipe, changed) == observed(pipe, expected)


def test_every_field_with_needs_is_named_without_them() -> None:
    """No field can be given needs without a case above in which they are not met."""
    named = {name for _, changes in WITHOUT_EFFECT for name in changes}
    assert named == {name for name, option in options(DQARConfig).items() if option.needs}


@pytest.mark.parametrize("field", LIVE)
def test_a_live_field_is_not_warned_about(field: str) -> None:
    """Where the test above saw a field's effect, no warning states that it has none."""
    others, one, another = LIVE[field]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DQARConfig.preset("maximum", **others | {field: another if others.get(field) is None else one})
    assert not [w for w in caught if str(w.message).startswith(f"{field} = ")]


def test_presets_and_copies_warn_of_nothing_old() -> None:
    """A preset asks for nothing without effect; a copy warns only of what its changes left without effect."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in PRESETS:
            DQARConfig.preset(name, layer_fraction=0.0, model_steps=16)
            DQARConfig.preset(name)
            DQARConfig.preset(name, use_layer_scheduling=False)
        DQARConfig.preset(BALANCED)
    with pytest.warns(DQARWarning, match="layer_fraction = 0.2"):
        config = DQARConfig(layer_fraction=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy = config.replace(max_age=3)
    with pytest.warns(DQARWarning, match=r"max_age = 3 has no effect: it needs plan_path = None") as caught:
        copy.replace(plan_path="plan.json")
    assert len(caught) == 1


def test_a_warm_up_that_other_rules_cover_is_named(pipe: DiTPipeline) -> None:
    """A warm-up below what the other one or `snr_low` forbid anyway is named once the steps are known."""
    config = DQARConfig(warmup_steps=8)
    with pytest.warns(DQARWarning, match=r"warmup_steps = 8 has no effect on these 50 steps") as caught:
        dqar.plan(config, pipe.scheduler, 50, 6)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dqar.plan(config.replace(warmup_fraction=0.0, snr_low=0.0), pipe.scheduler, 50, 6)
        dqar.plan(DQARConfig.preset("maximum", warmup_fraction=0.4), pipe.scheduler, 50, 6)
        dqar.plan(DQARConfig(), pipe.scheduler, 50, 6)


def test_a_covered_warm_up_is_named_when_a_generation_begins(pipe: DiTPipeline) -> None:
    """What `plan` warns of beforehand, the first step of a pipeline warns of too."""
    dqar.enable(pipe, DQARConfig(warmup_steps=1))
    with pytest.warns(DQARWarning, match="warmup_steps = 1 has no effect on these 10 steps"):
        generate(pipe)


def test_repr_shows_what_differs() -> None:
    """A configuration shows the fields that were changed, in a form that makes it again."""
    config = DQARConfig(max_age=2, targets=("mlp", "both"))
    assert repr(config) == "DQARConfig(max_age=2, targets=('mlp', 'both'))"
    assert eval(repr(config)) == config and repr(DQARConfig()) == "DQARConfig()"


def test_the_readme_shows_every_field() -> None:
    """The README's table is what the fields' options make: no field, rule or default can differ there."""
    text = (Path(dqar.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert config_table.rewritten(text) == text
    assert all(f"| `{name}` |" in text for name in options(DQARConfig))


BAD: list[tuple[str, Any]] = [
    ("num_layers", 0),
    ("num_layers", 10**5000),
    ("num_heads", 2.5),
    ("entropy_threshold", -1.0),
    ("entropy_threshold", math.nan),
    ("entropy_threshold", 10**400),
    ("entropy_threshold", "high"),
    ("snr_low", -0.1),
    ("snr_high", None),
    ("adaptive_entropy", 1),
    ("base_prompt_length", 0),
    ("prompt_length", 0),
    ("entropy_scales", (1.0, -1.0)),
    ("entropy_stride", 0),
    ("entropy_interval", 0),
    ("trace_entropy", "yes"),
    ("warmup_steps", -1),
    ("warmup_fraction", 1.0),
    ("use_layer_scheduling", None),
    ("schedule_type", "cosine"),
    ("layer_fraction", 1.1),
    ("early_phase_end", 0.9),
    ("mid_phase_end", -0.1),
    ("custom_schedule", (0.5,)),
    ("deep_layer_snr_threshold", -1.0),
    ("adaptive_tolerance", -0.1),
    ("probe_interval", 1),
    ("use_learned_policy", "yes"),
    ("policy_path", 5),
    ("policy_path", ""),
    ("reuse_threshold", 1.5),
    ("cfg_sharing", None),
    ("max_age", 0),
    ("targets", "block"),
    ("targets", ("mlp", "all")),
    ("targets", ()),
    ("forecast_order", 3),
    ("forecast_over", "time"),
    ("forecast_over", 0.0),  # which is the step's number
    ("forecast_over", 1),
    ("step_interval", 0),
    ("model_steps", 1),
    ("model_steps", 0.0),
    ("model_steps", 1.0),
    ("model_steps", 12.5),
    ("model_steps", True),
    ("model_steps", math.nan),
    ("log_snr_share", 1.5),
    ("guidance_interval", 0),
    ("output_order", 3),
    ("output_correction", 1.1),
    ("deviation_tolerance", -0.1),
    ("plan_path", ""),
    ("plan_path", 3),
    ("reuse_mode", "q"),
    ("quantization_mode", "per_row"),
    ("quantization_bits", 7),
    ("quantization_bits", (8, 3)),
    ("quantization_bits", ()),
]


def test_a_window_that_is_empty_is_refused() -> None:
    """A lower bound above the upper one is refused by the lower one's name."""
    with pytest.raises(ValueError, match=r"^snr_low = 20.0 is not allowed; allowed: at most snr_high = 10.0"):
        DQARConfig(snr_low=20.0, snr_high=10.0)


@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{field}-{n}" for n, (field, _) in enumerate(BAD)])
def test_bad_value_names_field_value_and_what_is_allowed(field: str, value: Any) -> None:
    """A value out of range is refused when the configuration is made, in one line that states all."""
    with pytest.raises(ValueError, match=rf"^{field} = .* is not allowed; allowed: ") as error:
        DQARConfig(**{field: value})
    assert isinstance(error.value, DQARError) and short_repr(value) in str(error.value)
    assert "\n" not in str(error.value)


def test_every_field_has_a_bad_value() -> None:
    """Each field's rule is exercised by at least one refused value."""
    assert {field for field, _ in BAD} == set(options(DQARConfig))


def test_unknown_preset_lists_the_presets() -> None:
    """An unknown preset is refused with the names there are."""
    with pytest.raises(ValueError, match=r"preset = 'fast' .*conservative, recommended"):
        DQARConfig.preset("fast")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DQARConfig(entropy_scales=(1.0, 2.0)), "entropy_scales has 2 entries; allowed: .* 6 layers"),
        (
            DQARConfig(schedule_type="custom", custom_schedule=(0.5,)),
            "custom_schedule has 1 entries; allowed: .* 6 layers",
        ),
        (DQARConfig(targets=("mlp", "both")), "targets has 2 entries; allowed: .* 6 layers"),
        (DQARConfig(quantization_bits=(8, 4)), "quantization_bits has 2 entries; allowed: .* 6 layers"),
        (DQARConfig(quantization_mode="per_head", num_heads=5), None),
    ],
)
def test_failed_enable_leaves_the_pipeline_as_it_was(
    pipe: DiTPipeline, config: DQARConfig, message: str | None
) -> None:
    """A configuration that does not fit the model is refused, and the one before goes on working."""
    dqar.enable(pipe, DQARConfig.preset("maximum"))
    before = generate(pipe)
    if message is None:
        dqar.enable(pipe, config)  # heads are only those measured: never a reason to fail
        return
    with pytest.raises(ValueError, match=message):
        dqar.enable(pipe, config)
    assert torch.equal(generate(pipe), before)


def test_a_transformer_of_another_pipeline_is_refused_before_anything_is_changed(pipe: DiTPipeline) -> None:
    """Given the transformer of one that is under DQAR too, a pipeline keeps what it had: handle and reuse."""
    own, other = pipe.transformer, build_tiny_pipeline()
    dqar.enable(pipe, DQARConfig.preset("maximum"))
    before = generate(pipe)
    dqar.enable(other)
    pipe.transformer = other.transformer
    with pytest.raises(ValueError, match="transformer is under DQAR already"):
        dqar.enable(pipe)
    pipe.transformer = own
    assert torch.equal(generate(pipe), before) and dqar.summary(pipe).ratio > 0


def test_enable_names_what_a_pipeline_lacks(pipe: DiTPipeline) -> None:
    """A pipeline without a transformer, a known SNR or attention modules is refused by name."""
    with pytest.raises(ValueError, match="has no transformer; allowed: "):
        dqar.enable(SimpleNamespace(scheduler=pipe.scheduler))
    with pytest.raises(ValueError, match="has no alphas_cumprod; allowed: "):
        dqar.enable(SimpleNamespace(transformer=pipe.transformer, scheduler=SimpleNamespace(timesteps=[1])))
    with pytest.raises(ValueError, match=r"transformer = Linear has no argument hidden_states; allowed: "):
        dqar.enable(SimpleNamespace(transformer=torch.nn.Linear(1, 1), scheduler=pipe.scheduler))


def test_summary_before_anything_ran_states_it(pipe: DiTPipeline) -> None:
    """Asking for a summary with DQAR off, or before a call, is one clear error."""
    with pytest.raises(RuntimeError, match="enable"):
        dqar.summary(pipe)
    dqar.enable(pipe)
    with pytest.raises(RuntimeError, match="no generation"):
        dqar.summary(pipe)


def test_without_a_configuration_one_step_of_five_is_skipped(pipe: DiTPipeline) -> None:
    """`enable(pipe)` does what the preset `balanced` does, on any number of steps; no layer is reused, and
    the published presets do not forecast."""
    for steps, skipped in ((10, 2), (7, 1), (3, 1), (2, 0), (1, 0)):
        dqar.enable(pipe)
        generate(pipe, steps=steps)
        summary = dqar.summary(pipe)
        assert int(np.sum(summary.skipped)) == skipped and "reused" not in summary.reasons
    dqar.enable(pipe)
    latents = generate(pipe)
    dqar.enable(pipe, DQARConfig.preset(BALANCED, model_steps=8))
    assert torch.equal(generate(pipe), latents)
    assert {DQARConfig.preset(name).forecast_order for name in PRESETS} == {0}
