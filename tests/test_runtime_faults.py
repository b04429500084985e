"""Faults that the runtime once had, each as small as it comes: right, or refused in one line."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build_tiny_pipeline, generate
from diffusers import (
    DDIMScheduler,
    DiTPipeline,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    UniPCMultistepScheduler,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

import dqar
from bench.studies.families.checks import RIGHT, Examination
from bench.studies.families.configurations import CONFIGURATIONS
from dqar import DQARConfig
from dqar.core.snr import schedule_snr
from dqar.errors import DQARWarning
from dqar.integration.trajectory import beginning
from dqar.plan import log_snr, mixture, positions

STEPS = 6
NULL = 1000


def config(**changes: Any) -> DQARConfig:
    """Two of three steps reused from the second on, kept as computed."""
    free = {
        "snr_low": 0.0, "warmup_steps": 0, "warmup_fraction": 0.0, "max_age": 2, "quantization_bits": 16,
        "forecast_order": 0,
    }  # fmt: skip
    return DQARConfig(**free | changes)


def skipping(**changes: Any) -> DQARConfig:
    """No layer reused: whole steps and branches alone."""
    return config(use_layer_scheduling=True, layer_fraction=0.0, **changes)


@torch.no_grad()
def guided_loop(pipe: Any, calls: int, steps: int = STEPS, names: tuple[str, ...] = ()) -> Tensor:
    """A hand-written loop with guidance in one call of two halves, or in a call for each branch."""
    pipe.scheduler.set_timesteps(steps)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    labels = torch.tensor([1, 2, NULL, NULL])
    for t in pipe.scheduler.timesteps:
        if calls == 1:
            output = pipe.transformer(torch.cat((x, x)), timestep=t.expand(4), class_labels=labels).sample
            one, other = output.chunk(2)
        else:
            one, other = (
                pipe.transformer(x, timestep=t.expand(2), class_labels=part).sample
                for part in labels.chunk(2)
            )
        x = pipe.scheduler.step(other + 4.0 * (one - other), t, x).prev_sample
    return x


def test_nothing_reusable_keeps_rotary_embeddings() -> None:
    """A model whose attention takes rotary embeddings is bit-identical while nothing may be reused."""
    outcome = Examination(CONFIGURATIONS["cogvideox_rotary"]).outcome("off")
    assert outcome.verdict == RIGHT, outcome.why


@pytest.mark.parametrize("solver", [DDIMScheduler, DPMSolverMultistepScheduler])
def test_two_calls_a_step_are_one_step_of_two_branches(pipe: DiTPipeline, solver: Any) -> None:
    """Guidance in two calls reuses what guidance in one call does, and the summary has the loop's steps."""
    pipe.scheduler = solver.from_config(pipe.scheduler.config)
    dqar.enable(pipe, config())
    together = guided_loop(pipe, 1)
    assert dqar.summary(pipe).calls == 1
    apart = guided_loop(pipe, 2)
    summary = dqar.summary(pipe)
    torch.testing.assert_close(apart, together, rtol=1e-3, atol=1e-3)
    assert (summary.steps, summary.calls) == (STEPS, 2) and summary.ratio == pytest.approx(4 / 6)


@pytest.mark.filterwarnings("ignore::dqar.errors.DQARWarning")
def test_one_branch_is_left_out_where_branches_are_calls(pipe: DiTPipeline) -> None:
    """`guidance_interval` skips the unconditional call itself, with what it skips as one half of a batch."""
    dqar.enable(pipe, skipping(guidance_interval=2))
    together = guided_loop(pipe, 1)
    rows: list[int] = []
    block = pipe.transformer.transformer_blocks[0]
    hook = block.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    apart = guided_loop(pipe, 2)
    hook.remove()
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)
    branches = dqar.summary(pipe).branches
    assert (branches == 1).any() and len(rows) == branches.sum()


def test_the_snr_of_flow_sigmas_and_of_edm() -> None:
    """Solvers with flow sigmas have ((1 - s) / s)^2, whatever their alphas are, and EDM has 1 / s^2."""
    flow = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    flow.set_timesteps(STEPS)
    sigmas = flow.sigmas.numpy()[:STEPS].astype(np.float64)
    assert schedule_snr(flow) == pytest.approx(((1 - sigmas) / sigmas) ** 2)
    edm = EDMEulerScheduler()
    edm.set_timesteps(STEPS)
    assert schedule_snr(edm) == pytest.approx(1 / edm.sigmas.numpy()[:STEPS].astype(np.float64) ** 2)


def test_log_snr_is_clipped_in_one_way() -> None:
    """What forecasts are over is the log-SNR along which steps are spread, also where the SNR is 0."""
    snr = np.array([0.0, 1.0, np.inf])
    over = DQARConfig(forecast_over="log_snr", forecast_order=1)
    assert np.array_equal(positions(over, snr), log_snr(snr)) and np.isfinite(log_snr(snr)).all()
    mixed = DQARConfig(forecast_over=0.5, forecast_order=1)
    assert np.array_equal(positions(mixed, snr), mixture(snr, 0.5)) and np.isfinite(mixture(snr, 0.5)).all()


def test_where_a_generation_begins() -> None:
    """The scheduler's own index decides, and timesteps are found as t, t / 1000 and 1 - t / 1000."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    times = scheduler.timesteps.double().numpy()
    scales: tuple[Callable[[Any], Any], ...] = (lambda t: t, lambda t: t / 1000, lambda t: 1 - t / 1000)
    for scale in scales:
        begin, start = beginning(scheduler, times, float(scale(times[3])))
        assert begin == 3 and start is not None and start(times[1]) == pytest.approx(scale(times[1]))
    heun = HeunDiscreteScheduler()
    heun.set_timesteps(STEPS)
    heun.set_begin_index(4)  # its timestep is the one before it, too
    assert beginning(heun, heun.timesteps.double().numpy(), float(heun.timesteps[4]))[0] == 4


def test_offloading_does_not_end_reuse(pipe: DiTPipeline) -> None:
    """With model CPU offload, which hooks the model again after each call, every call reuses alike; `disable`
    leaves a pipeline that works."""
    pipe.enable_model_cpu_offload(device="cpu")
    untouched = generate(pipe)
    dqar.enable(pipe, config())
    first, second = generate(pipe), generate(pipe)
    assert torch.equal(first, second) and not torch.equal(first, untouched)
    assert dqar.summary(pipe).ratio > 0.5
    pipe.remove_all_hooks()
    assert torch.equal(generate(pipe), first)
    dqar.disable(pipe)
    assert torch.equal(generate(pipe), untouched)


def passes(pipe: Any) -> list[Tensor]:
    """The outputs of some forward passes at random timesteps."""
    draw = torch.Generator().manual_seed(0)
    outputs = []
    for _ in range(4):
        x, t = torch.randn(2, 4, 8, 8, generator=draw), torch.randint(0, 1000, (2,), generator=draw)
        outputs.append(pipe.transformer(x, timestep=t, class_labels=torch.tensor([1, 2])).sample.detach())
    return outputs


@pytest.mark.filterwarnings("ignore::dqar.errors.DQARWarning")
@pytest.mark.parametrize("chosen", [config(), skipping(model_steps=2)], ids=["attention", "steps"])
def test_calls_outside_of_a_generation_run_untouched(pipe: DiTPipeline, chosen: DQARConfig) -> None:
    """With gradients, in training mode, and in a validation loop, before and after a generation."""
    expected = passes(pipe)
    dqar.enable(pipe, chosen)
    for _ in range(2):
        assert all(map(torch.equal, passes(pipe), expected))
        with torch.no_grad():
            assert all(map(torch.equal, passes(pipe), expected))
        generate(pipe)
    pipe.transformer.train()
    labels, x = torch.tensor([1, 2]), torch.randn(2, 4, 8, 8)
    pipe.scheduler.set_timesteps(STEPS)
    calls = dqar.summary(pipe).steps
    with torch.no_grad():
        for t in pipe.scheduler.timesteps:
            pipe.transformer(x, timestep=t.expand(2), class_labels=labels)
    assert dqar.summary(pipe).steps == calls  # nothing of it was followed


@pytest.mark.parametrize("shared", [False, True], ids=["own-scheduler", "shared-scheduler"])
def test_another_pipeline_with_the_same_transformer_is_untouched(pipe: DiTPipeline, shared: bool) -> None:
    """The pipeline that was not enabled never reuses, not even on the same scheduler; `disable` on it warns,
    and the enabled one goes on."""
    scheduler = pipe.scheduler if shared else DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    other = DiTPipeline(transformer=pipe.transformer, vae=pipe.vae, scheduler=scheduler)
    other.set_progress_bar_config(disable=True)
    untouched = generate(other)
    dqar.enable(pipe, config())
    reused = generate(pipe)
    assert torch.equal(generate(other), untouched)
    with pytest.warns(DQARWarning, match="not enabled"):
        dqar.disable(other)
    assert torch.equal(generate(pipe), reused)


def test_copies_and_pickles_are_clean(pipe: DiTPipeline) -> None:
    """A copy of an enabled transformer runs its own weights, and one from a pickle is the untouched model."""
    untouched = generate(pipe)
    dqar.enable(pipe, config())
    generate(pipe)
    twin = copy.deepcopy(pipe.transformer)
    for weight in twin.parameters():
        weight.data.zero_()
    x, t, labels = torch.randn(2, 4, 8, 8), torch.tensor([9, 9]), torch.tensor([1, 2])
    with torch.no_grad():
        assert not twin(x, timestep=t, class_labels=labels).sample.any()
    whole = copy.deepcopy(pipe)
    assert torch.equal(generate(whole), untouched)
    pipe.transformer = pickle.loads(pickle.dumps(pipe.transformer))
    assert torch.equal(generate(pipe), untouched)


def test_replaced_processors_are_reused_too(pipe: DiTPipeline) -> None:
    """Processors that are set after `enable` change nothing in what is reused."""
    untouched = generate(pipe)
    dqar.enable(pipe, config())
    expected = generate(pipe)
    for block in pipe.transformer.transformer_blocks:
        block.attn1.set_processor(AttnProcessor2_0())
    assert torch.equal(generate(pipe), expected) and not torch.equal(expected, untouched)
    dqar.disable(pipe)
    assert torch.equal(generate(pipe), untouched)


def test_the_summary_counts_what_happened(pipe: DiTPipeline) -> None:
    """A layer that the model does not call is not reused, whatever was decided."""
    dqar.enable(pipe, config())
    block = pipe.transformer.transformer_blocks[2]
    block.forward = lambda hidden_states, **_: hidden_states
    generate(pipe)
    del block.forward
    summary = dqar.summary(pipe)
    assert not summary.map[:, 2].any() and summary.map[:, 1].any() and summary.reasons["not called"] == 10


def test_hooks_that_others_put_on_later_stay(pipe: DiTPipeline) -> None:
    """What wraps a module's `forward` after `enable` still runs after `disable`, and nothing is reused."""
    untouched = generate(pipe)
    dqar.enable(pipe, config())
    attention, seen = pipe.transformer.transformer_blocks[0].attn1, []
    inner = attention.forward

    def outer(*args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        return inner(*args, **kwargs)

    attention.forward = outer
    dqar.disable(pipe)
    assert torch.equal(generate(pipe), untouched) and len(seen) == 10
    dqar.enable(pipe, config())
    assert not torch.equal(generate(pipe), untouched)


@pytest.mark.filterwarnings("ignore::dqar.errors.DQARWarning")
def test_equal_noise_is_not_taken_for_guidance(pipe: DiTPipeline) -> None:
    """Without guidance, two samples from one seed are two samples: neither is left out."""
    noise = [torch.Generator().manual_seed(3) for _ in range(2)]
    untouched = pipe([1, 2], generator=noise, guidance_scale=1.0, num_inference_steps=6, output_type="pt")
    dqar.enable(pipe, skipping(guidance_interval=2))
    noise = [torch.Generator().manual_seed(3) for _ in range(2)]
    output = pipe([1, 2], generator=noise, guidance_scale=1.0, num_inference_steps=6, output_type="pt")
    assert torch.equal(output.images, untouched.images) and not dqar.summary(pipe).conditional_only.any()


@pytest.mark.parametrize("fields", [{"reuse_mode": "kv"}, {"entropy_threshold": 1.0}], ids=["kv", "entropy"])
def test_linear_attention_is_refused_where_it_cannot_be_softmax(fields: dict[str, Any]) -> None:
    """Sana's linear attention is reused as it is, and its K, V and entropy are refused by name."""
    examination = Examination(CONFIGURATIONS["sana"])
    with pytest.raises(ValueError, match=r"is not allowed; allowed: .* SanaTransformer2DModel.*SanaLinear"):
        dqar.enable(examination.pipe, config(**fields))
    outcome = examination.outcome("attention")
    assert outcome.verdict == RIGHT, outcome.why


def test_a_scheduler_whose_timesteps_are_not_set(pipe: DiTPipeline) -> None:
    """PNDM has no timesteps before its first generation, and is enabled and followed all the same."""
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config)
    dqar.enable(pipe, config())
    assert generate(pipe).isfinite().all()
    assert dqar.summary(pipe).steps == len(pipe.scheduler.timesteps)


def test_an_interrupted_loop_begins_again(pipe: DiTPipeline) -> None:
    """A DDIM loop that is left half-way and run again on the same timesteps is a generation of its own."""
    dqar.enable(pipe, config())
    pipe.scheduler.set_timesteps(STEPS)
    labels, runs = torch.tensor([1, 2]), []
    with torch.no_grad():
        for steps in (3, STEPS):
            x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
            for t in pipe.scheduler.timesteps[:steps]:
                output = pipe.transformer(x, timestep=t.expand(2), class_labels=labels).sample
                x = pipe.scheduler.step(output, t, x).prev_sample
            runs.append(dqar.summary(pipe))
    assert [run.steps for run in runs] == [3, STEPS]
    assert np.array_equal(runs[1].snr[:3], runs[0].snr)


def test_a_guidance_cutoff_keeps_the_summary(pipe: DiTPipeline) -> None:
    """Where the batch is halved on the way, all steps are in the summary, and nothing cached is mixed up."""
    dqar.enable(pipe, config())
    pipe.scheduler.set_timesteps(STEPS)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for step, t in enumerate(pipe.scheduler.timesteps):
            labels = torch.tensor([1, 2, NULL, NULL] if step < 3 else [1, 2])
            rows = torch.cat((x, x)) if step < 3 else x
            output = pipe.transformer(rows, timestep=t.expand(len(rows)), class_labels=labels).sample
            x = pipe.scheduler.step(output[:2], t, x).prev_sample
    summary = dqar.summary(pipe)
    assert summary.steps == STEPS and not summary.map[3].any() and summary.map[[1, 2, 4, 5]].all()


def test_an_option_without_effect_is_named(pipe: DiTPipeline) -> None:
    """`guidance_interval` and `cfg_sharing` in a generation without guidance warn that they do nothing."""
    for fields in ({"guidance_interval": 2}, {"cfg_sharing": True}):
        dqar.enable(pipe, config(**fields))
        with pytest.warns(DQARWarning, match=f"{next(iter(fields))} has no effect"):
            generate(pipe, guidance_scale=1.0)


def test_a_model_in_peft_is_enabled(pipe: DiTPipeline) -> None:
    """A transformer within peft's wrapper reuses as it does without, for fresh adapters add nothing."""
    peft = pytest.importorskip("peft")
    dqar.enable(pipe, config())
    expected = generate(pipe)
    dqar.disable(pipe)
    pipe.transformer = peft.get_peft_model(pipe.transformer, peft.LoraConfig(target_modules=["to_q"]))
    dqar.enable(pipe, config())
    assert torch.equal(generate(pipe), expected) and dqar.summary(pipe).ratio > 0.5


def test_enabling_refused_leaves_no_trace() -> None:
    """A model without what a configuration needs is refused by name and stays as it was."""
    pipe = build_tiny_pipeline()
    pipe.transformer = SD3Transformer2DModel(
        sample_size=8, num_layers=1, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=16,
        caption_projection_dim=32, pooled_projection_dim=16, pos_embed_max_size=8, in_channels=4,
        out_channels=4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="reuse_mode = 'kv' is not allowed; allowed: 'output' for SD3"):
        dqar.enable(pipe, config(reuse_mode="kv"))
    assert not hasattr(pipe, "_dqar") and "_compiled_call_impl" not in vars(pipe.transformer)
