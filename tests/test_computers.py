"""The entropy and SNR computers: histories for plots, exact chunks, x_0 as the solvers see it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from dqar.core.entropy import AttentionEntropyComputer
from dqar.core.snr import SNRComputer

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
