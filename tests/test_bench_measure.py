"""What is measured, against definitions, closed forms and cases worked out by hand."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from bench.machine import nvml, provenance
from bench.measure import distributions, flops, paired, quality, timing
from bench.measure.converged import converged, halved, halved_flow, solution
from bench.methods.scheduler import solver
from bench.pipeline import models
from bench.pipeline.session import Generation, Session
from bench.spec.run_spec import RunSpec
from bench.store import keys
from bench.store.tensors import Cache
from dqar.evaluation.psnr import psnr

QUALITY = {"n": 4, "converged_n": 2, "converged_steps": 60, "extractor": None, "worst": 2}


def spec(model: Path, method: str = "baseline", **changes: Any) -> RunSpec:
    settings: dict[str, Any] = {
        "suite": "tiny",
        "name": "run",
        "method": method,
        "model": str(model),
        "num_inference_steps": 6,
        "batch_size": 2,
        "timing": {"min_pairs": 2, "max_pairs": 3, "warmup": 0},
        "quality": QUALITY,
    }
    return RunSpec(**settings | changes)


def test_psnr_of_a_known_error() -> None:
    """An error of 255 everywhere is 0 dB, of 25.5 it is 20 dB, none is infinite."""
    black = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert psnr(black + 255, black).item() == pytest.approx(0.0)
    assert psnr(black + 51, black).item() == pytest.approx(13.979, abs=1e-3)
    assert psnr(black, black).item() == float("inf")


def test_ssim_of_constant_images() -> None:
    """For constants only the luminance term is left; identical images give 1."""
    a = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    b = torch.full((1, 3, 16, 16), 200, dtype=torch.uint8)
    c1 = (0.01 * 255) ** 2
    assert paired.ssim(a, b).item() == pytest.approx((2 * 20000 + c1) / (50000 + c1), abs=1e-6)
    noisy = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.allclose(paired.ssim(noisy, noisy), torch.ones(2, dtype=torch.float64))


def test_drift_is_relative() -> None:
    """Twice the latent is a drift of 1, whatever its size; each image has its own."""
    x = torch.randn(3, 4, 8, 8)
    factors = torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1, 1)
    assert paired.drift(x * factors, x).tolist() == pytest.approx([0.0, 1.0, 0.5])


def test_the_mosaic_is_lossless() -> None:
    """The PNG holds row 0 and row 1 exactly."""
    import io

    import numpy as np
    from PIL import Image

    top, bottom = (torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8) for _ in range(2))
    seen = np.asarray(Image.open(io.BytesIO(paired.mosaic(top, bottom))))
    assert seen.shape == (16, 24, 3)
    assert (seen[:8, 8:16] == top[1].permute(1, 2, 0).numpy()).all()
    assert (seen[8:, 16:] == bottom[2].permute(1, 2, 0).numpy()).all()


def test_distances_between_gaussians() -> None:
    """Shifting unit Gaussians by 2 in one of 4 dimensions is an FD of 4; KID shows it, and its
    interval of identical distributions holds 0."""
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4000, 4, generator=rng) for _ in range(2))
    shifted = b + torch.tensor([2.0, 0, 0, 0])
    far = distributions.distance(shifted, a, "identity", "a Gaussian")
    near = distributions.distance(b, a, "identity", "a Gaussian")
    assert far.fd == pytest.approx(4.0, rel=0.05)
    assert near.fd == pytest.approx(0.0, abs=0.02)
    assert near.kid and far.kid
    assert near.kid.low <= 0 <= near.kid.high < far.kid.low


def test_the_kernel_distance_of_paired_sets_is_not_below_zero() -> None:
    """Images of the same seeds, hardly changed, are as far apart as two samples of one kind."""
    base = torch.randn(160, 8, generator=torch.Generator().manual_seed(0))
    blocks = distributions.kernel_blocks(base + 1e-3, base)
    assert len(blocks) == 10
    assert sum(blocks) / 10 == pytest.approx(0, abs=0.2)


def test_the_interval_of_a_kernel_distance_of_few_images() -> None:
    """Of 24 images there are ten blocks, whose interval holds 0 in four of five samples of one kind (that
    of two blocks: in fewer than half); of still fewer there are as many as have two images each."""
    rng = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(60):
        a, b = torch.randn(2, 24, 4, generator=rng)
        kid = distributions.distance(a, b, "identity", "a Gaussian").kid
        held += bool(kid and kid.low <= 0 <= kid.high)
    assert held >= 48
    assert len(set(distributions.kernel_blocks(a, a))) == 10
    assert [len(distributions.kernel_blocks(a[:n], b[:n])) for n in (4, 9)] == [2, 4]


def test_flops_agree_with_the_formula(tiny_model_dir: Path) -> None:
    """Attention's counted FLOPs are 8 n d^2 + 4 n^2 d a row and layer (two a multiply-add), and
    the speedup allowed for a reuse ratio follows S = 1 / (1 - r f)."""
    session = Session.open(spec(tiny_model_dir, "dqar", options={"preset": "maximum"}))
    session.candidate(range(2))
    cost = flops.count(session)
    rows, layers, tokens, width = 4, 6, 16, 32
    expected = rows * layers * (8 * tokens * width**2 + 4 * tokens**2 * width)
    assert cost.attention == expected
    pairs = timing.Pairs(seconds=[(2.0, 1.0)] * 3)
    limits = flops.limits(session, cost, timing.summarise(pairs, session.spec))
    assert session.reuse is not None and limits.realised is not None
    ratio = session.reuse.ratio
    assert limits.speedup_limit == pytest.approx(1 / (1 - ratio * limits.attention_share))
    assert limits.realised == pytest.approx(1 / (limits.speedup_limit - 1))


def test_utilisation_is_a_share_of_a_peak(tiny_model_dir: Path) -> None:
    """Off the data sheets the peak is a matrix product's speed here, which a tiny model stays below."""
    session = Session.open(spec(tiny_model_dir))
    timed = timing.summarise(timing.measure(session, lambda line: None), session.spec)
    limits = flops.limits(session, flops.count(session), timed)
    assert limits.mfu and limits.peak and limits.flops_per_second and limits.peak_source
    assert limits.mfu == limits.flops_per_second / limits.peak
    assert 0 < limits.mfu < 1
    assert "measured" in limits.peak_source or torch.cuda.is_available()


def test_no_baseline_uses_more_than_there_is(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a matrix product was slower than the baseline, the baseline is the peak known, and is named."""
    monkeypatch.setattr(flops, "peak_flops", lambda dtype: (1.0, "best of some matrix products, measured"))
    session = Session.open(spec(tiny_model_dir))
    timed = timing.summarise(timing.measure(session, lambda line: None), session.spec)
    limits = flops.limits(session, flops.count(session), timed)
    assert limits.mfu == 1
    assert limits.peak_source == "the baseline itself, above the best of some matrix products, measured"


@pytest.mark.parametrize("options", [{"preset": "maximum"}, {"preset": "maximum", "reuse_mode": "kv"}])
def test_the_candidates_flops_are_those_that_ran(tiny_model_dir: Path, options: dict[str, Any]) -> None:
    """The count of a whole generation is the baseline's less what the map shows as reused: all of
    attention, or its K and V projections; the control's count is the baseline's."""
    session = Session.open(spec(tiny_model_dir, "dqar", options=options | {"quantization_bits": 16}))
    session.candidate(range(2))
    whole, reuse = flops.count(session).generation(6), session.reuse
    rows, tokens, width = 4, 16, 32
    each = 8 * tokens * width**2 + 4 * tokens**2 * width
    saved = each if options.get("reuse_mode") != "kv" else 4 * tokens * width**2
    assert reuse is not None
    assert flops.candidate(session) == whole - sum(map(sum, reuse.map)) * rows * saved
    assert session.reuse is reuse
    control = Session.open(spec(tiny_model_dir))
    assert flops.candidate(control) == whole


def test_cuda_graphs_need_cuda(tiny_model_dir: Path) -> None:
    """Without a device the setting is refused, not ignored."""
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(ValueError, match="cuda_graphs: true needs a CUDA device"):
        Session.open(spec(tiny_model_dir, compile=True, cuda_graphs=True))


def test_entropy_is_traced_where_no_gate_measures_it(tiny_model_dir: Path) -> None:
    """The map shows entropy, in nats below ln(tokens), at computed layers; the timed runs did not
    measure it, and its own generation does not replace the timed ones' reuse."""
    session = Session.open(spec(tiny_model_dir, "dqar", options={"preset": "maximum"}))
    session.candidate(range(2))
    timed, traced = session.reuse, session.traced()
    assert timed and traced and timed.entropy is None and traced.entropy
    assert (traced.map, traced.ratio) == (timed.map, timed.ratio)
    entropy = [e for row in traced.entropy for e in row if e is not None]
    assert 0 < min(entropy) <= max(entropy) <= 2.7726  # ln 16


def test_no_entropy_is_traced_where_only_whole_steps_are_skipped(tiny_model_dir: Path) -> None:
    """Nothing but skipped steps leaves no layer whose entropy could explain a reuse: no generation is spent
    on it, and the record of hundreds of steps stays small."""
    skipping = {"preset": "maximum", "layer_fraction": 0.0, "model_steps": 3}
    session = Session.open(spec(tiny_model_dir, "dqar", options=skipping))
    session.candidate(range(2))
    traced = session.traced()
    assert traced and traced.skipped == traced.ratio == 0.5 and traced.entropy is None


def test_fewer_steps_may_gain_what_they_save(tiny_model_dir: Path) -> None:
    """Half the steps save half the forwards, and nothing of the decoder."""
    session = Session.open(spec(tiny_model_dir, "fewer_steps", options={"steps": 3}))
    session.candidate(range(2))
    cost = flops.count(session)
    pairs = timing.Pairs(seconds=[(2.0, 1.0)] * 3)
    limits = flops.limits(session, cost, timing.summarise(pairs, session.spec))
    assert limits.speedup_limit == pytest.approx(cost.generation(6) / cost.generation(3))
    assert 1.5 < limits.speedup_limit < 2


def test_an_image_does_not_depend_on_its_batch(tiny_model_dir: Path) -> None:
    """Image 3 is the same latent alone and among others, up to rounding."""
    session = Session.open(spec(tiny_model_dir))
    alone = session.baseline(range(3, 4)).latents
    among = session.baseline(range(2, 5)).latents[1:2]
    assert paired.drift(alone, among).item() < 1e-5


def test_pairs_are_interleaved_until_a_reason_to_stop(tiny_model_dir: Path) -> None:
    """Both arms make the same images, in an order that varies; the reason to stop is noted."""
    session = Session.open(spec(tiny_model_dir, timing={"min_pairs": 2, "max_pairs": 3,
                                "warmup": 0, "target_halfwidth": 1e-9}))  # fmt: skip
    order: list[str] = []
    for arm in ("baseline", "candidate"):
        _note_calls(session, arm, order)
    pairs = timing.measure(session, say=lambda text: None)
    assert pairs.stopped == "pairs"
    assert len(pairs.seconds) == 3
    assert {tuple(order[i : i + 2]) for i in (0, 2, 4)} > {("baseline", "candidate")}
    assert torch.equal(pairs.baseline[1].latents, pairs.candidate[1].latents)


def _note_calls(session: Session, arm: str, order: list[str]) -> None:
    original = getattr(session, arm)

    def noted(samples: range) -> Generation:
        order.append(arm)
        generation: Generation = original(samples)
        return generation

    setattr(session, arm, noted)


def test_a_spent_budget_stops_at_the_least_number_of_pairs(tiny_model_dir: Path) -> None:
    """With no budget left, a run still times the pairs it must, and no more, though quality wants
    the images of more."""
    settings = {"min_pairs": 2, "max_pairs": 9, "warmup": 0, "budget_s": 1e-6,
                "target_halfwidth": 1e-9}  # fmt: skip
    wanted = spec(tiny_model_dir, timing=settings, quality={"n": 8, "converged_n": 0})
    pairs = timing.measure(Session.open(wanted), lambda text: None)
    assert (len(pairs.seconds), pairs.stopped) == (2, "budget")


def test_contaminated_pairs_are_excluded() -> None:
    """Contaminated pairs stay in the record, but not in the speedup; too few left, no verdict."""
    steady, wild = [(2.0, 1.0)] * 5, [(9.0, 1.0)] * 2
    plain = RunSpec(suite="s", name="n", method="baseline", model="embedded")
    pairs = timing.Pairs(seconds=[*steady, *wild], contaminated={5: "why", 6: "why"})
    timed = timing.summarise(pairs, plain)
    assert (timed.speedup.median, timed.verdict, len(timed.pairs)) == (2.0, "FASTER", 7)
    fewer = timing.Pairs(seconds=steady, contaminated={0: "why"})
    assert timing.summarise(fewer, plain).verdict == "AMBIGUOUS"


def test_the_work_of_others_is_seen() -> None:
    """A process that keeps every core busy disturbs a pair."""
    cores = provenance.cores()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        torch.set_num_threads(cores)
        watch = timing.Disturbance()
        _work(0.4)
        assert "other processes took" in (watch.reason() or "")
    finally:
        torch.set_num_threads(1)
        for process in busy:
            process.kill()
            process.wait()


def test_a_throttled_pair_is_marked(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair during which the device reports that it was throttled is kept, marked with the reason, and not
    in the metrics."""
    answers = iter([["software power cap"], *[[]] * 11])  # of each generation
    monkeypatch.setattr(nvml, "held_down", lambda: next(answers))
    monkeypatch.setattr(timing, "_clocks", lambda: (0.0, 0.0, 0.0))  # whatever else runs here
    undisturbed = dict.fromkeys(("min_pairs", "max_pairs"), 6) | {"warmup": 0}
    session = Session.open(spec(tiny_model_dir, timing=undisturbed))
    pairs = timing.measure(session, lambda line: None)
    timed = timing.summarise(pairs, session.spec)
    assert (timed.contaminated, timed.contaminated_why) == ([0], ["GPU throttled: software power cap"])
    assert pairs.kept() == pairs.seconds[1:] and len(timed.pairs) == 6


def test_the_state_of_the_machine_is_noted() -> None:
    """Load, clocks, throttling and, with a device, its temperature, power, throttle reasons and foreign
    processes; its power limit stands in the provenance. What nothing reports is null."""
    state = provenance.state()
    assert state.keys() == {"load_average", "cpu_mhz", "governor", "cpu_throttles", "gpu"}
    assert state["load_average"] >= 0
    if state["gpu"] is None:
        assert not torch.cuda.is_available()
    else:
        named = {"sm_mhz", "memory_mhz", "temperature_c", "power_w", "throttle", "foreign_processes"}
        assert state["gpu"].keys() == named
    gpu = provenance.provenance(0)["gpu"]
    assert (gpu is None) == (state["gpu"] is None) and (gpu is None or "power_limit_w" in gpu)


def _work(seconds: float) -> None:
    import time

    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        random.random()


def test_the_converged_trajectory_is_made_once(tiny_model_dir: Path, tmp_path: Path) -> None:
    """It is the untouched model on the solver and at the steps that quality names, from the last timestep on,
    and is read back from the cache; another solver's is another."""
    session = Session.open(spec(tiny_model_dir))
    cache = Cache(tmp_path, keys.inputs(session.spec))
    options = {"scheduler": "dpm_solver++", "timesteps": halved(60, 1000)}
    finer = session.under(spec(tiny_model_dir, "fewer_steps", options=options))
    solved, own = converged(session, cache), session.pipe.scheduler
    assert torch.equal(solved, finer.candidate(range(2)).latents)
    other = session.under(spec(tiny_model_dir, quality=QUALITY | {"converged_solver": "own"}))
    assert torch.equal(converged(other, cache), session.baseline(range(2), num_inference_steps=60).latents)
    assert session.pipe.scheduler is own
    session.pipe = None  # not needed again
    assert torch.equal(converged(session, cache), solved)


def test_a_flow_is_solved_with_hardly_any_error() -> None:
    """Where data are normal a flow's end is known: what solves the converged trajectory ends far nearer to it
    than Euler's scheduler at more steps; the model is asked at the very timesteps, which fall to below 1."""

    def error(**options: Any) -> float:
        pipe = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler(shift=2.0))
        with solver(pipe, options or solution(pipe)) as call:
            pipe.scheduler.set_timesteps(**({"num_inference_steps": 2} | call))
            x, spread = torch.ones(1, 1, dtype=torch.float64), 0.3
            for t in pipe.scheduler.timesteps:
                sigma = float(t) / 1000
                variance = (1 - sigma) ** 2 * spread**2 + sigma**2
                v = x * (sigma - (1 - sigma) * spread**2) / variance
                x = pipe.scheduler.step(v, t, x).prev_sample
            return abs(float(x) - spread)

    assert error() < 0.001 < error(steps=280) / 2
    assert halved_flow(2, 2.0)[:4] == pytest.approx([1000, 666.67, 333.33, 166.67], abs=0.01)
    assert 0.5 <= halved_flow(200, 2.0)[-1] < 1


def test_the_last_step_is_halved() -> None:
    """Timesteps of the converged trajectory are those of the trailing spacing, and halves down to 0."""
    assert halved(100, 1000) == [*range(999, 8, -10), 4, 2, 1, 0]
    assert halved(1000, 1000) == [*range(999, -1, -1)]


def test_fewer_steps_drift_from_the_converged_trajectory(tiny_model_dir: Path, tmp_path: Path) -> None:
    """The baseline is nearer to the converged trajectory than a third of its steps are."""
    session = Session.open(spec(tiny_model_dir, "fewer_steps", options={"steps": 2}))
    pairs = timing.measure(session, say=lambda text: None)
    cache = Cache(tmp_path, keys.inputs(session.spec))
    metrics, sample = quality.measure(session, pairs, cache, "p.png", lambda text: None)
    assert metrics and sample and metrics.drift_converged and metrics.baseline_drift_converged
    assert metrics.drift_converged.mean > metrics.baseline_drift_converged.mean > 0
    assert metrics.worst[0].drift == pytest.approx(max(metrics.drift_per_image))
    assert not metrics.identical


def test_models_that_cannot_be_used_are_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Missing directories, files and weights, and damaged ones, are each one line."""
    import shutil

    from bench.errors import BadInput

    def broken(change: str) -> str:
        path = tmp_path / change
        shutil.copytree(tiny_model_dir, path)
        weights = path / "transformer" / "diffusion_pytorch_model.safetensors"
        changes: dict[str, Callable[[], object]] = {
            "index": lambda: (path / "model_index.json").unlink(),
            "config": lambda: (path / "vae" / "config.json").write_text("{"),
            "weights": weights.unlink,
            "cut": lambda: weights.write_bytes(weights.read_bytes()[:100]),
            "class": lambda: (path / "model_index.json").write_text(
                json.dumps({"_class_name": "StableDiffusionPipeline"})
            ),
        }
        changes[change]()
        with pytest.raises(BadInput) as caught:
            models.check(path)
        return str(caught.value)

    assert "model_index.json: missing" in broken("index")
    assert "vae/config.json: is not JSON" in broken("config")
    assert "transformer: weights missing" in broken("weights")
    assert "diffusion_pytorch_model.safetensors: not readable" in broken("cut")
    assert "'StableDiffusionPipeline'" in broken("class")
    with pytest.raises(BadInput, match="no directory"):
        models.directory("nowhere")
