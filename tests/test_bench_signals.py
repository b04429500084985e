"""The study of signals: errors by their definition, correlations and shares that are known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.pipeline.session import Session
from bench.record import Mean
from bench.spec.run_spec import RunSpec
from bench.studies.signals import analysis
from bench.studies.signals.measure import FIRST, errors, table
from bench.studies.signals.report import verdict, write_report
from bench.studies.signals.rows import Study

LAYERS = 5


def made(entropy_matters: bool, samples: int = 8) -> pd.DataFrame:
    """Rows whose ln(error) is -0.5 log_snr + a constant a layer, + entropy where it matters."""
    rng = np.random.default_rng(0)
    sample, step, layer = (i.ravel() for i in np.indices((samples, 30, LAYERS)))
    entropy, log_snr = rng.normal(2, 0.5, len(layer)), step / 5 - 3
    error = (
        -0.5 * log_snr + 0.3 * layer + (entropy if entropy_matters else 0) + rng.normal(0, 0.1, len(layer))
    )
    columns = {"image": sample, "label": sample, "step": step, "layer": layer, "entropy": entropy}
    noise = rng.normal(size=len(layer))
    return pd.DataFrame(columns | {"log_snr": log_snr, "latent_norm": noise, "hold": np.exp(error)})


def test_errors_follow_their_definition() -> None:
    """An output that goes along a line in log-SNR is forecast without error, however uneven the steps;
    holding it errs by its relative change."""
    log_snr = np.array([-3.0, -1.0, 0.5, 4.0])
    start, slope = torch.ones(1, 2, 3), torch.full((1, 2, 3), 0.25)
    hold, forecast = errors([[start + float(x) * slope] for x in log_snr], log_snr)
    assert np.isnan(hold[:FIRST]).all()
    assert forecast[FIRST:] == pytest.approx(0, abs=1e-6)
    assert hold[3, 0] == pytest.approx((2 - 1.125) / 2)


def test_rankings_see_what_was_put_in() -> None:
    """Error falls with SNR within a layer; entropy ranks the layers only where it was made to."""
    for matters in (True, False):
        found = {r.signal: r for r in analysis.rankings(made(matters), "hold")}
        entropy, snr = found["entropy"].within_step, found["log_snr"]
        assert entropy is not None
        assert (entropy.low > 0.3) == matters
        assert snr.within_layer.high < -0.8
        assert snr.within_step is None


def test_shares_see_what_was_put_in() -> None:
    """A calibration of each layer explains what depends on the layer; entropy adds only what it knows."""
    for matters in (True, False):
        share = {e.model: e.share.mean for e in analysis.explained(made(matters), "hold")}
        added = share["SNR + calibration + entropy"] - share["SNR + calibration"]
        paired = analysis.added(made(matters), "hold", "SNR + calibration")
        assert paired.mean == pytest.approx(added)
        assert (paired.low > 0.1) == matters
        assert share["SNR + calibration"] > share["SNR"] + 0.02
        assert (added > 0.1) == matters
        assert (share["SNR + calibration + entropy"] > 0.95) or not matters


def test_the_default_gate_follows_from_the_shares() -> None:
    """Where entropy adds much to SNR the page says to gate on both, where it adds little, on SNR alone."""
    for share, text in ((0.2, "a gate on both"), (0.01, "the default gate is SNR")):
        found = Mean(mean=share, low=share, high=share)
        assert text in verdict({"hold": found, "forecast": found})


def test_a_study_of_the_tiny_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Measured rows hold each image, step and layer once, survive their file, and make a page, twice
    the same."""
    study = Study.measured(str(tiny_model_dir), images=4, steps=6, guidance=4.0, seed=0)
    assert len(study.rows) == 4 * (6 - FIRST) * 6
    assert study.rows.groupby(["image", "step", "layer"]).size().eq(1).all()
    assert (study.rows[["hold", "forecast", "entropy"]] > 0).all().all()
    study.save(tmp_path / "rows")
    again = Study.load(tmp_path / "rows")
    pages = [write_report(again.rows, again.facts, tmp_path / str(i)).read_text() for i in range(2)]
    assert pages[0] == pages[1]
    assert "rank correlation of a layer's entropy" in pages[0]
    assert (tmp_path / "0" / "maps.webp").stat().st_size > 0


def test_measuring_leaves_the_pipeline_alone(tiny_model_dir: Path) -> None:
    """Watched or not, the same latents come out, and no hook or processor stays."""
    spec = RunSpec(
        suite="signals", name="s", method="baseline", model=str(tiny_model_dir), batch_size=1,
        num_inference_steps=4,
    )  # fmt: skip
    session = Session.open(spec)
    before = session.baseline(range(1)).latents
    table(session, 1, progress=False)
    assert torch.equal(session.baseline(range(1)).latents, before)
    assert not session.pipe.transformer._forward_pre_hooks
