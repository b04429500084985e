"""Methods: each leaves the pipeline bit for bit as it was, and does what it says meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import generate

from bench import methods
from bench.measure.generation import Session
from bench.suite import RunSpec

CASES: list[tuple[str, dict[str, Any]]] = [
    ("baseline", {}),
    ("dqar", {"preset": "maximum"}),
    ("dqar", {"preset": "recommended", "max_age": 2, "quantization_bits": 16}),
    ("fewer_steps", {"steps": 4}),
    ("fewer_steps", {"scheduler": "dpm_solver++", "steps": 4}),
    ("fewer_steps", {"scheduler": "unipc"}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_pipeline_is_restored(pipe: Any, name: str, options: dict[str, Any]) -> None:
    """Used and left, a method leaves no trace in the next generation or in the pipeline's parts."""
    before, scheduler = generate(pipe), pipe.scheduler
    parts = [type(module) for module in pipe.transformer.modules()]
    with methods.get(name).apply(pipe, options):
        generate(pipe)
    assert torch.equal(generate(pipe), before)
    assert pipe.scheduler is scheduler
    assert [type(module) for module in pipe.transformer.modules()] == parts


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_pipeline_is_restored_after_an_error(pipe: Any, name: str, options: dict[str, Any]) -> None:
    """An error within a method does not keep it from restoring the pipeline."""
    before = generate(pipe)
    with pytest.raises(RuntimeError), methods.get(name).apply(pipe, options):
        raise RuntimeError
    assert torch.equal(generate(pipe), before)


def test_dqar_reports_what_it_reused(pipe: Any) -> None:
    """The record's map, ratio and cache bytes are those of the generation just made."""
    options = {"preset": "maximum", "max_age": 2}
    with methods.get("dqar").apply(pipe, options) as arm:
        generate(pipe, steps=10)
        reuse, held = arm.reuse(), arm.cache_bytes()
    assert reuse is not None
    table = torch.tensor(reuse.map)
    assert table.shape == (10, 6)
    assert reuse.ratio == pytest.approx(table.float().mean().item())
    assert reuse.ratio > 0
    assert held > 0
    assert sum(reuse.reasons.values()) == 60


def test_fewer_steps_keeps_the_noise_schedule(pipe: Any) -> None:
    """Another solver is built on the model's own betas, prediction type and timestep spacing."""
    with methods.get("fewer_steps").apply(pipe, {"scheduler": "dpm_solver++", "steps": 4}) as arm:
        assert arm.call == {"num_inference_steps": 4}
        swapped = pipe.scheduler.config
    for name in ("beta_start", "beta_end", "beta_schedule", "prediction_type", "timestep_spacing"):
        assert swapped[name] == pipe.scheduler.config[name]


def tiny_spec(model: Path, options: dict[str, Any]) -> RunSpec:
    given: dict[str, Any] = {"method": "dqar", "options": options, "model": str(model)}
    return RunSpec(suite="tiny", name="run", num_inference_steps=6, batch_size=2, **given)


def test_an_entropy_quantile_is_placed_on_the_model_at_hand(tiny_model_dir: Path) -> None:
    """The threshold is a quantile of the entropies measured, so that each point of a grid lets more
    through; the record tells the nats that it came to."""
    shares, nats = [], []
    for quantile in (0.0, 0.5, 1.0):
        options = {"preset": "maximum", "use_layer_scheduling": False, "entropy_quantile": quantile}
        session = Session.open(tiny_spec(tiny_model_dir, options))
        session.candidate(range(2))
        found = session.traced()
        assert found is not None
        shares.append(found.ratio)
        nats.append(found.resolved["entropy_threshold"])
    assert shares[0] < shares[1] < shares[2]
    assert nats[0] < nats[1] < nats[2]
