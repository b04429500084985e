"""The entropy and SNR computers: histories for plots, exact chunks, x_0 as the solvers see it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
    PNDMScheduler,
    SCMScheduler,
)

import dqar.core.solver_sensitivity as solver_sensitivity_module
from dqar.core.entropy import AttentionEntropyComputer, compute_attention_entropy, entropy_from_qk
from dqar.core.noise_kind import noise_kind, solves_flow
from dqar.core.snr import SNRComputer, compute_latent_snr, schedule_snr
from dqar.core.solver_sensitivity import solver_sensitivity

PREDICTIONS = ("epsilon", "v_prediction", "sample")


def test_chunks_agree_with_the_definition() -> None:
    """From q and k in chunks that do not divide the rows, entropy is that of the full matrix."""
    query, key = torch.randn(2, 2, 3, 50, 16, generator=torch.Generator().manual_seed(0)).unbind()
    computer = AttentionEntropyComputer(chunk=7)
    weights = (query @ key.transpose(-1, -2) / 4).softmax(-1)
    assert computer.from_qk(query, key) == pytest.approx(float(computer.from_weights(weights)), abs=1e-4)
    strided = AttentionEntropyComputer(stride=3).from_qk(query, key)
    assert strided == pytest.approx(float(computer.from_weights(weights[:, :, ::3])), abs=1e-4)


def test_history_is_steps_by_layers() -> None:
    """The history has a row a step and a column a layer, nan where nothing was recorded."""
    computer = AttentionEntropyComputer()
    assert computer.history().shape == (0, 0)
    computer.record(layer=2, step=0, value=torch.tensor(1.5))
    computer.record(layer=0, step=1, value=0.5)
    expected = [[np.nan, np.nan, 1.5], [0.5, np.nan, np.nan]]
    np.testing.assert_array_equal(computer.history(), expected)
    computer.reset()
    assert computer.history().size == 0


def test_bad_stride() -> None:
    """A stride or chunk below 1 is refused."""
    with pytest.raises(ValueError, match="stride = 0 is not allowed; allowed: "):
        AttentionEntropyComputer(stride=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_predicted_latent_is_the_solvers_own(prediction: str) -> None:
    """For each prediction type, x_0 equals the one DDIM and DPM-Solver++ derive in their own step."""
    ddim = DDIMScheduler(prediction_type=prediction, clip_sample=False)
    dpm = DPMSolverMultistepScheduler.from_config(ddim.config)
    latent, output = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    for scheduler in (ddim, dpm):
        scheduler.set_timesteps(10)
    for t in ddim.timesteps[:9]:
        expected = ddim.step(output, t, latent).pred_original_sample
        torch.testing.assert_close(SNRComputer(ddim).predicted_latent(latent, output, t), expected)
    for step, t in enumerate(dpm.timesteps):
        dpm._step_index = step
        expected = dpm.convert_model_output(output, sample=latent)
        torch.testing.assert_close(
            SNRComputer(dpm).predicted_latent(latent, output, t), expected, rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("timestep", [1, 50, 300, 700, 950])
def test_the_two_snrs_of_a_noised_latent(prediction: str, timestep: int) -> None:
    """With x_t = a x_0 + s eps and a perfect model, the prediction's SNR is 1 / ((1 - a)^2 + s^2)."""
    computer = SNRComputer(DDIMScheduler(prediction_type=prediction))
    x_0, noise = torch.randn(2, 4, 4, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()
    a = float(computer.scheduler.alphas_cumprod[timestep]) ** 0.5
    s = (1 - a * a) ** 0.5
    outputs = {"epsilon": noise, "v_prediction": a * noise - s * x_0, "sample": x_0}
    snr = computer.from_prediction(a * x_0 + s * noise, outputs[prediction], timestep)
    assert snr.mean() == pytest.approx(1 / ((1 - a) ** 2 + s * s), rel=0.05)
    assert snr.min() > 0.45
    if timestep == 1:  # nearly no noise: both SNRs agree
        assert snr.mean() == pytest.approx(computer.at(timestep), rel=0.05)


def test_learned_variance_is_left_out() -> None:
    """Channels beyond the latent's change nothing."""
    computer, latent = SNRComputer(DDIMScheduler()), torch.randn(2, 4, 8, 8)
    output = torch.randn(2, 8, 8, 8)
    whole, half = (computer.from_prediction(latent, o, 500) for o in (output, output[:, :4]))
    assert torch.equal(whole, half) and whole.shape == (2,)


def test_schedule() -> None:
    """The schedule's SNR at the set timesteps is that at each training timestep."""
    scheduler = DPMSolverMultistepScheduler()
    scheduler.set_timesteps(8)
    computer = SNRComputer(scheduler)
    expected = [computer.at(int(t)) for t in scheduler.timesteps]
    np.testing.assert_allclose(computer.schedule(), expected)


def test_bad_schedulers() -> None:
    """No alphas_cumprod, or an unknown prediction type, is refused by name."""
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no alphas_cumprod"):
        SNRComputer(FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match="prediction_type = 'flow_prediction' is not allowed"):
        SNRComputer(DPMSolverMultistepScheduler(prediction_type="flow_prediction"))


def random_qk() -> tuple[torch.Tensor, torch.Tensor]:
    query, key = torch.randn(2, 2, 3, 6, 4, generator=torch.Generator().manual_seed(1)).unbind()
    return query, key


def weighed(query: torch.Tensor, key: torch.Tensor, added: torch.Tensor | float = 0.0) -> torch.Tensor:
    """The entropy of each query, by its definition in float64."""
    p = ((query.double() @ key.double().transpose(-1, -2)) / 2 + added).softmax(-1)
    return -(p * torch.where(p > 0, p, 1.0).log()).sum(-1)


def test_entropy_of_weights_by_hand() -> None:
    """Of (1/2, 1/2) ln 2, of (1/4, 3/4) 0.5623, of certainty none; the mean over rows, float32."""
    weights = torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[1.0, 0.0], [0.5, 0.5]]], dtype=torch.float64)
    entropy = compute_attention_entropy(weights)
    assert (
        entropy == pytest.approx((2 * math.log(2) + 0.562335) / 4, abs=1e-6)
        and entropy.dtype == torch.float32
    )
    assert compute_attention_entropy(torch.ones(1, 1, 1), eps=1.0) == pytest.approx(-math.log(2))
    assert compute_attention_entropy(torch.eye(2)) == 0.0


@pytest.mark.parametrize("chunk", [None, 1, 4, 99])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_chunks_change_nothing(stride: int, chunk: int | None) -> None:
    """Every stride-th row counts once, however many are held at a time."""
    query, key = random_qk()
    entropy = entropy_from_qk(query, key, 0.5, stride, chunk)
    assert entropy == pytest.approx(float(weighed(query[:, :, ::stride], key).mean()), abs=1e-5)


MASKS = {
    "rows": torch.ones(6, 6, dtype=torch.bool).tril(),
    "one for all": torch.tensor([[True, True, False, True, False, False]]),
    "of each sample": torch.ones(2, 1, 6, 6, dtype=torch.bool).triu(),
}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", MASKS)
def test_masked_keys_do_not_count(name: str, stride: int) -> None:
    """A boolean mask, or one that is added, gives the entropy over the keys that a query may look at."""
    query, key = random_qk()
    added = torch.zeros(MASKS[name].shape).masked_fill(~MASKS[name], -torch.inf)
    expected = weighed(query, key, added.double())[:, :, ::stride].mean()
    for mask in (MASKS[name], added, added.to(torch.bfloat16)):
        entropy = entropy_from_qk(query, key, 0.5, stride, chunk=2, mask=mask)
        assert entropy == pytest.approx(float(expected), abs=1e-5) and entropy.dtype == torch.float32


def test_numbers_in_a_mask_are_added() -> None:
    """A bias that forbids nothing changes the weights; one alike for all keys does not."""
    query, key = random_qk()
    bias = torch.linspace(-2, 2, 6).expand(6, 6)
    entropy = entropy_from_qk(query, key, 0.5, mask=bias)
    assert entropy == pytest.approx(float(weighed(query, key, bias.double()).mean()), abs=1e-5)
    alike = entropy_from_qk(query, key, 0.5, mask=torch.full((6, 6), 3.0))
    assert alike == pytest.approx(float(weighed(query, key).mean()), abs=1e-5)


def test_a_query_that_may_look_nowhere_has_no_entropy() -> None:
    """It is left out of the mean, and does not make it nan."""
    query, key = random_qk()
    mask = MASKS["rows"].clone()
    mask[2] = False
    rows = weighed(query, key, torch.zeros(6, 6).masked_fill(~mask, -torch.inf).double())[
        :, :, [0, 1, 3, 4, 5]
    ]
    assert entropy_from_qk(query, key, 0.5, mask=mask) == pytest.approx(float(rows.mean()), abs=1e-5)


def test_the_scale_is_the_callers_or_that_of_attention() -> None:
    """Half the default scale is what is measured where that is asked for; a chunk below 1 is refused."""
    query, key = random_qk()
    entropy = AttentionEntropyComputer().from_qk(query, key, 0.25)
    assert entropy == pytest.approx(float(weighed(query / 2, key).mean()), abs=1e-5)
    with pytest.raises(ValueError, match="chunk = 0 is not allowed"):
        AttentionEntropyComputer(chunk=0)
    computer = AttentionEntropyComputer()
    assert (computer.stride, computer.chunk) == (1, 256)
    assert AttentionEntropyComputer(chunk=1).chunk == AttentionEntropyComputer(stride=1).stride == 1


def scheduled(kind: Any, steps: int = 3, **options: Any) -> Any:
    instance = kind(**options)
    instance.set_timesteps(steps)
    return instance


def squared(values: Any) -> Any:
    return np.asarray(values, dtype=np.float64)[:3] ** 2


def test_the_snr_of_each_kind_of_noise() -> None:
    """Flow ((1 - s) / s)^2, EDM and Karras's spacings 1 / s^2, TrigFlow 1 / tan(t)^2, else a / (1 - a)."""
    flow = scheduled(FlowMatchEulerDiscreteScheduler)
    assert schedule_snr(flow) == pytest.approx(squared((1 - flow.sigmas.double()) / flow.sigmas.double()))
    assert schedule_snr(flow)[0] == 0.0 and len(schedule_snr(flow)) == 3
    for spacing in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        karras = scheduled(EulerDiscreteScheduler, **{spacing: True})
        assert schedule_snr(karras) == pytest.approx(1 / squared(karras.sigmas))
    for kind in (EDMEulerScheduler, CMStochasticIterativeScheduler):
        assert schedule_snr(scheduled(kind)) == pytest.approx(1 / squared(scheduled(kind).sigmas))
    angle = scheduled(SCMScheduler, 2)
    assert schedule_snr(angle)[1] == pytest.approx(1 / math.tan(1.3) ** 2)
    table = DDIMScheduler().alphas_cumprod.double().numpy()
    ddim = scheduled(DDIMScheduler, 4)
    assert ddim.timesteps.tolist() == [750, 500, 250, 0]
    signal = table[[750, 500, 250, 0]]
    assert schedule_snr(ddim) == pytest.approx(signal / (1 - signal))


def test_timesteps_between_two_take_the_nearer_ones_snr() -> None:
    """Beyond the last training step that one's; at no noise the SNR stays finite."""
    scheduler = scheduled(DDIMScheduler)
    table = scheduler.alphas_cumprod.double().numpy()
    scheduler.timesteps = torch.tensor([1000.0, 499.6, 499.4, -1.0])
    signal = table[[999, 500, 499, 0]]
    assert schedule_snr(scheduler) == pytest.approx(signal / (1 - signal))
    scheduler.alphas_cumprod = torch.ones(1000)
    assert schedule_snr(scheduler) == pytest.approx([1e12] * 4)
    flow = scheduled(FlowMatchEulerDiscreteScheduler)
    flow.sigmas = torch.zeros(4)
    assert schedule_snr(flow) == pytest.approx([1e12] * 3)
    edm = scheduled(EDMEulerScheduler)
    edm.sigmas = torch.zeros(4)
    assert schedule_snr(edm) == pytest.approx([1e12] * 3)
    angle = scheduled(SCMScheduler, 2)
    angle.timesteps = torch.zeros(2)
    assert schedule_snr(angle) == pytest.approx([1e12] * 2)


@pytest.mark.parametrize(
    ("scheduler", "kind"),
    [
        (DDIMScheduler(), "alpha"),
        (EulerDiscreteScheduler(), "alpha"),
        (EulerDiscreteScheduler(use_karras_sigmas=True), "sigma"),
        (EDMEulerScheduler(), "sigma"),
        (SCMScheduler(), "angle"),
        (FlowMatchEulerDiscreteScheduler(), "flow"),
        (FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True), "flow"),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"), "flow"),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True), "flow"),
        (DPMSolverMultistepScheduler(prediction_type="flow_prediction"), "flow"),
    ],
)
def test_the_kind_of_noise_is_the_schedulers(scheduler: Any, kind: str) -> None:
    """By class where that decides, else by its configuration; flow before Karras's spacing before alphas."""
    assert noise_kind(scheduler) == kind


@pytest.mark.parametrize(
    ("name", "config", "flow"),
    [
        ("FlowMapEulerDiscreteScheduler", {}, True),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "epsilon"}, True),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": False, "prediction_type": "epsilon"}, False),
        ("DDIMScheduler", {}, False),
    ],
)
def test_a_flow_is_known_by_its_schedulers_file_alone(name: str, config: dict[str, Any], flow: bool) -> None:
    """The harness and the runtime ask the same function, so that neither places steps of another kind."""
    assert solves_flow(name, config) is flow


def test_schedulers_without_a_known_snr_are_refused() -> None:
    """By class, with what is missing: known noise, or timesteps."""
    with pytest.raises(
        ValueError, match=r"^scheduler = IPNDMScheduler has no alphas_cumprod; allowed: a diff"
    ):
        schedule_snr(scheduled(IPNDMScheduler))
    with pytest.raises(
        ValueError, match=r"^scheduler = PNDMScheduler has no timesteps; allowed: one with set_"
    ):
        schedule_snr(PNDMScheduler())
    with pytest.raises(ValueError, match=r"^scheduler = object has no alphas_cumprod; allowed: "):
        noise_kind(object())


def test_the_snr_of_latents_by_hand() -> None:
    """||x_0||^2 / (||x_t - x_0||^2 + eps) for each latent, float32; other shapes are refused."""
    x_t, x_0 = torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]]), torch.tensor([[[3.0, 2.0]], [[0.0, 3.0]]])
    assert compute_latent_snr(x_t.half(), x_0.half()).tolist() == pytest.approx([13 / 4, 9 / 1e-8])
    assert compute_latent_snr(x_t, x_0, eps=1.0).tolist() == pytest.approx([13 / 5, 9.0])
    assert compute_latent_snr(x_t.half(), x_0.half()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"predicted has shape \(2, 1\); allowed: x_t's, \(2, 1, 2\)"):
        compute_latent_snr(x_t, x_0[..., 0])


def test_the_snr_at_a_training_timestep() -> None:
    """alpha_bar / (1 - alpha_bar), finite without noise; an unnamed prediction is of the noise."""
    computer = SNRComputer(DDIMScheduler())
    alpha = float(computer.scheduler.alphas_cumprod[500])
    assert computer.at(500) == alpha / (1 - alpha) and computer.prediction_type == "epsilon"
    computer.scheduler.alphas_cumprod = torch.ones(1000)
    assert computer.at(3) == 1e12
    scheduler = DDIMScheduler()
    scheduler._internal_dict = {}
    assert SNRComputer(scheduler).prediction_type == "epsilon"
    with pytest.raises(
        ValueError, match=r"prediction_type = 'x' is not allowed; allowed: epsilon, v_prediction, s"
    ):
        SNRComputer(DDIMScheduler(prediction_type="x"))


def test_a_flow_schedule_is_answered_by_its_steps() -> None:
    """Euler adds (s_next - s) times the output: that is how sensitive the final latent is to each."""
    flow = scheduled(FlowMatchEulerDiscreteScheduler, 4)
    steps = np.diff(flow.sigmas.double().numpy())
    assert solver_sensitivity(flow) == pytest.approx(steps)
    assert solver_sensitivity(flow, begin=2) == pytest.approx([0.0, 0.0, *steps[2:]])
    assert flow.step_index is None and solver_sensitivity(flow).dtype == np.float64
    dpm = scheduled(DPMSolverMultistepScheduler)
    solver_sensitivity(dpm)
    assert dpm.model_outputs == [None, None]  # what it has seen is its own


def test_schedules_are_remembered_up_to_a_number() -> None:
    """The oldest goes first; another number of steps, beginning, class or option is another schedule."""
    solver_sensitivity_module._known.clear()
    first = solver_sensitivity(scheduled(DDIMScheduler, 2))
    others = [
        solver_sensitivity(scheduled(DDIMScheduler, 3)),
        solver_sensitivity(scheduled(DDIMScheduler, 2), begin=1),
        solver_sensitivity(scheduled(DDPMScheduler, 2)),
        solver_sensitivity(scheduled(DDIMScheduler, 2, prediction_type="sample")),
    ]
    assert len(solver_sensitivity_module._known) == 5 and all(other is not first for other in others)
    assert solver_sensitivity(scheduled(DDIMScheduler, 2)) is first
    for steps in range(4, 16):
        solver_sensitivity(scheduled(DDIMScheduler, steps))
    assert len(solver_sensitivity_module._known) == 16
    assert solver_sensitivity(scheduled(DDIMScheduler, 2)) is not first
    assert solver_sensitivity(scheduled(DDIMScheduler, 2), begin=1) is others[1]
