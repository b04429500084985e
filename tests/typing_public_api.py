"""The public API as a user's type checker sees it; mypy reads this file, nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
from torch import Tensor

import dqar
from dqar import (
    DQARConfig,
    DQARDiTWrapper,
    DQARError,
    KVQuantizer,
    LayerScheduler,
    QuantizedKVCache,
    ReuseGate,
    ReusePolicy,
)
from dqar.core.quantization import QuantizedTensor
from dqar.core.reuse_gate import Decision
from dqar.experiment import Experiment
from dqar.integration import DQARDDIMSampler, SamplerConfig
from dqar.policy.saved_plan import SavedPlan
from dqar.training.policy_trainer import PolicyTrainer, TrainingMetrics
from dqar.training.traces import Trace
from dqar.utils.helpers import save_images


def config(path: Path) -> None:
    """Configurations keep their types through presets, copies and files."""
    preset = DQARConfig.preset("recommended", max_age=2)
    assert_type(preset, DQARConfig)
    assert_type(preset.replace(snr_low=0.2), DQARConfig)
    assert_type(DQARConfig.from_yaml(path), DQARConfig)
    assert_type(preset.max_age, int | None)
    assert_type(preset.targets, str | tuple[str, ...])
    DQARConfig(no_such_field=1)  # type: ignore[call-arg]
    DQARConfig(warmup_steps="5")  # type: ignore[arg-type]
    preset.max_age = 3  # type: ignore[misc]
    assert_type(Experiment.from_yaml(path).sampling, SamplerConfig)


def pipeline(pipe: Any) -> None:
    """Reuse on a pipeline, and what it reports."""
    assert_type(dqar.enable(pipe, DQARConfig()), None)
    assert_type(dqar.summary(pipe).ratio, float)
    assert_type(dqar.plan(DQARConfig(), pipe.scheduler, 50), npt.NDArray[np.bool_])
    wrapper = DQARDiTWrapper(pipe.transformer, DQARConfig())
    sampler = DQARDDIMSampler(wrapper, pipe.scheduler, SamplerConfig(num_inference_steps=20))
    assert_type(sampler.sample(1, [3]), Tensor | tuple[Tensor, Tensor])


def parts(tensor: Tensor, path: Path) -> None:
    """The classes that the original specification names."""
    quantizer = KVQuantizer("per_head", bits=8, num_heads=2)
    assert_type(quantizer.quantize(tensor), QuantizedTensor | Tensor)
    assert_type(QuantizedKVCache(2, quantizer).load(0), tuple[Tensor, ...])
    assert_type(ReuseGate(DQARConfig()).should_reuse(1.0, 1.0, 3, 50), Decision)
    assert_type(LayerScheduler(DQARConfig(), 28).eligible(3, 50), npt.NDArray[np.bool_])
    assert_type(ReusePolicy.load(path), ReusePolicy)
    assert_type(SavedPlan.load(path).facts["model"], Any)
    assert_type(PolicyTrainer(ReusePolicy(), budget=1.0).fit(Trace.load(path)), TrainingMetrics)
    assert_type(dqar.compute_attention_entropy(tensor), Tensor)
    assert_type(dqar.compute_latent_snr(tensor, tensor), Tensor)
    assert_type(save_images(tensor, path), list[Path])
    assert_type(DQARError("x").args, tuple[Any, ...])
