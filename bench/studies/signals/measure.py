"""Signals and errors of untouched generations: for each image, step and layer of attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

import dqar
from bench.methods.dqar import shape_of
from bench.pipeline.session import Session
from dqar.integration.adapter import Adapter
from dqar.integration.pipeline import attention_layers

FIRST = 2  # steps before a linear forecast has the two outputs that it draws its line through


def table(session: Session, samples: int, progress: bool = True) -> pd.DataFrame:
    """Measure signals and errors of images.

    Args:
        session: the model, its prompts or labels, and its steps.
        samples: number of images.
        progress: whether to show a bar, where stderr is a terminal.

    Returns:
        One row an image, step and layer: image, label, step, layer, entropy (nats), log_snr, latent_norm, and
        the relative errors `hold` and `forecast` of the layer's output.
    """
    numbers = tqdm(range(samples), desc="signals", unit="image", disable=None if progress else True)
    return pd.concat([_sample(session, number) for number in numbers], ignore_index=True)


def _sample(session: Session, number: int) -> pd.DataFrame:
    pipe = session.pipe
    reuse_nothing = {"layer_fraction": 0, "trace_entropy": True, "entropy_stride": 1}
    dqar.enable(pipe, dqar.DQARConfig.preset("maximum", **shape_of(pipe) | reuse_nothing))
    try:
        with watched(pipe.transformer) as seen:
            session.baseline(range(number, number + 1))
        summary = dqar.summary(pipe)
    finally:
        dqar.disable(pipe)
    log_snr = np.log(np.maximum(summary.snr, 1e-12))
    hold, forecast = errors(seen.outputs, log_snr)
    return _rows(number, session.label(number), summary.entropy, log_snr, seen.norms, hold, forecast)


def _rows(
    number: int, label: int, entropy: Any, log_snr: Any, norms: list[float], hold: Any, forecast: Any
) -> pd.DataFrame:
    steps, layers = entropy.shape
    step, layer = (index[FIRST:].ravel() for index in np.indices((steps, layers)))
    columns = {
        "image": number,
        "label": label,
        "step": step,
        "layer": layer,
        # What the gate has when it decides: the entropy of the layer's last computation.
        "entropy": entropy[step - 1, layer],
        "log_snr": log_snr[step],
        "latent_norm": np.asarray(norms)[step],
        "hold": hold[step, layer],
        "forecast": forecast[step, layer],
    }
    return pd.DataFrame(columns)


@dataclass
class Seen:
    """What one generation showed."""

    outputs: list[list[Tensor]] = field(default_factory=list)  # [steps][layers] of [batch, tokens, width]
    norms: list[float] = field(default_factory=list)  # of the latent, a step


@contextmanager
def watched(transformer: Any) -> Iterator[Seen]:
    """Collect the attention outputs and the latent's norm of every step.

    Args:
        transformer: a pipeline's transformer, DQAR disabled.

    Yields:
        What is collected as the pipeline runs.
    """
    seen = Seen()

    def begin(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        latent = args[0] if args else kwargs["hidden_states"]
        seen.norms.append(float(latent.float().flatten(1).norm(dim=1).mean()))
        seen.outputs.append([])

    hooks = [transformer.register_forward_pre_hook(begin, with_kwargs=True)]
    for attention in attention_layers(transformer):
        hooks.append(attention.register_forward_hook(lambda _, __, out: seen.outputs[-1].append(_image(out))))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _image(output: Any) -> Tensor:
    """The image's part of what an attention returns: the first of two streams."""
    first = output[0] if isinstance(output, tuple) else output
    return torch.as_tensor(first)


def prompt_tokens(session: Session) -> int | None:
    """Count the tokens of a prompt as the transformer is given them.

    Args:
        session: one image of it is generated in one step.

    Returns:
        The tokens, padding included; None without a prompt.
    """
    adapter, seen = Adapter(session.pipe.transformer), []

    def begin(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(adapter.call(args, kwargs).prompt_length)

    hook = session.pipe.transformer.register_forward_pre_hook(begin, with_kwargs=True)
    try:
        session.baseline(range(1), num_inference_steps=1)
    finally:
        hook.remove()
    return seen[0]


def errors(outputs: list[list[Tensor]], log_snr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the errors of two forecasts of every layer's output.

    Args:
        outputs: an attention output for each step and layer.
        log_snr: natural logarithm of each step's SNR, `[steps]`.

    Returns:
        Relative L2 errors `[steps, layers]` of holding the last output, and of the line through the last two
        over log-SNR; nan where there are not enough before.
    """
    steps, layers = len(outputs), len(outputs[0])
    hold, forecast = np.full((steps, layers), np.nan), np.full((steps, layers), np.nan)
    for step in range(FIRST, steps):
        reach = (log_snr[step] - log_snr[step - 1]) / (log_snr[step - 1] - log_snr[step - 2])
        for layer in range(layers):
            before, last, now = (outputs[step - back][layer] for back in (2, 1, 0))
            size = torch.linalg.vector_norm(now.float())
            drawn = last + float(reach) * (last - before)
            hold[step, layer] = torch.linalg.vector_norm((now - last).float()) / size
            forecast[step, layer] = torch.linalg.vector_norm((now - drawn).float()) / size
    return hold, forecast
