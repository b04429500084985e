"""The demands on DQAR: a configuration, a generation under it, and what must come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.studies.families.denoising import Loop
from dqar import DQARConfig

# Every second step reused from the first one on, in every layer, kept as computed.
REUSE = DQARConfig(
    warmup_steps=0, warmup_fraction=0.0, snr_low=0.0, snr_high=float("inf"), max_age=1,
    use_layer_scheduling=False, quantization_bits=16, forecast_order=0,
)  # fmt: skip


def no_layer(**fields: Any) -> DQARConfig:
    """Make a configuration that reuses no layer: what is left are whole steps and guidance branches.

    Args:
        **fields: further fields of DQARConfig.

    Returns:
        The configuration.
    """
    return DQARConfig(
        warmup_steps=0, warmup_fraction=0.0, snr_low=0.0, snr_high=float("inf"), use_layer_scheduling=True,
        schedule_type="linear", layer_fraction=0.0, **fields,
    )  # fmt: skip


_ONE_CALL = Loop()
TWO_CALLS = Loop(branches=("cond", "uncond"))
_VARYING = Loop(constant=False)
_LONG = Loop(steps=4)  # the second forecast has two outputs to go by


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A configuration of DQAR, the generation to run under it, and what must come out."""

    config: DQARConfig
    loop: Loop = _ONE_CALL
    reuses: bool = True  # blocks must be spared work, and the summary must report it
    layers: bool = True  # every block must be
    exact: bool = True
    stale: bool = (
        False  # inputs change: steps that compute have the untouched outputs, those that reuse others
    )
    entropy: bool = False  # must be measured
    outside: bool = False  # whether to call the model at a timestep that the schedule lacks, too
    again: bool = False  # whether to generate once more after `disable`


_GUIDANCE = no_layer(guidance_interval=2)
DEMANDS: dict[str, Demand] = {
    "off": Demand(config=REUSE.replace(warmup_steps=1000, forecast_order=1), loop=_VARYING, reuses=False),
    "attention": Demand(config=REUSE, outside=True, again=True),
    "mlp": Demand(config=REUSE.replace(targets="mlp"), again=True),
    "forecast": Demand(config=REUSE.replace(forecast_order=1), loop=_LONG),
    "steps": Demand(config=no_layer(step_interval=2), layers=False),
    "steps as objects": Demand(config=no_layer(step_interval=2), loop=Loop(as_dict=True), layers=False),
    "two calls": Demand(config=REUSE, loop=TWO_CALLS),
    "changing inputs": Demand(
        config=REUSE, loop=Loop(constant=False, branches=("cond", "uncond")), stale=True
    ),
    "two calls, steps": Demand(config=no_layer(step_interval=2), loop=TWO_CALLS, layers=False),
    "guidance, halves": Demand(config=_GUIDANCE, loop=Loop(halves=True), layers=False, exact=False),
    "guidance, two calls": Demand(config=_GUIDANCE, loop=TWO_CALLS, layers=False, exact=False, again=True),
    "kv": Demand(config=REUSE.replace(reuse_mode="kv"), again=True),
    "entropy": Demand(
        config=REUSE.replace(warmup_steps=1000, trace_entropy=True), loop=_VARYING, reuses=False, entropy=True
    ),
}
