"""The state that a transformer's layers share along a trajectory, and the decision of each step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqar.cache.kv_cache import QuantizedKVCache
from dqar.config import DQARConfig
from dqar.core.entropy import entropy_from_qk
from dqar.core.quantization import KVQuantizer
from dqar.core.reuse_gate import Reason, ReuseGate, blocked_by_rules
from dqar.core.snr import schedule_snr
from dqar.plan import allowed
from dqar.policy.layer_scheduler import LayerScheduler

NOT_RUN = -1  # in a trajectory's reasons: a step that has not run


@dataclass
class Trajectory:
    """One generation as it runs: the schedule it follows and what was decided on the way."""

    timesteps: Any  # the scheduler's own object: a new one means a new generation
    inputs: tuple[Any, ...]  # shape, dtype and device of the latent
    snr: npt.NDArray[np.float64]  # [steps]
    blocked: npt.NDArray[np.int8]  # [steps, layers], what the rules forbid
    gate: ReuseGate
    reasons: npt.NDArray[np.int8]  # [steps, layers]; -1 = not run yet
    entropy: npt.NDArray[np.float64]  # [steps, layers], nan = not measured
    known: npt.NDArray[np.float64]  # [layers], the entropy of each layer's last measurement
    step: int
    cache_bytes: int = 0

    @property
    def last(self) -> bool:
        """Whether this step is the last of the schedule."""
        return self.step == len(self.snr) - 1


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the last generation reused. `str()` of it is a short text."""

    steps: int
    layers: int
    ratio: float  # reused attention calls / all
    plan_ratio: float  # the same for the plan, in which every entropy passes
    map: npt.NDArray[np.bool_] = field(repr=False)  # [steps, layers], True = reused
    entropy: npt.NDArray[np.float64] = field(repr=False)  # [steps, layers], nats, nan = not measured
    snr: npt.NDArray[np.float64] = field(repr=False)  # [steps]
    reasons: dict[str, int]  # why calls were reused or computed -> calls
    cache_bytes: int  # the most the cache held

    def __str__(self) -> str:
        why = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        return (
            f"{self.steps} steps x {self.layers} layers: {self.ratio:.2%} of the attention calls "
            f"reused (plan {self.plan_ratio:.2%}), cache {self.cache_bytes / 2**20:.2f} MiB\n{why}"
        )


class DQARManager:
    """Decides once a step which layers are reused, and keeps what they share.

    `scheduler` returns the diffusers scheduler in use now, so that a pipeline may change its own.
    A generation begins when that scheduler's `timesteps` were set anew, or have all been used; a
    changed latent shape, dtype or device begins one too. Steps are counted, not read from a tensor:
    past the first step the only host sync is the one that reads a step's entropies, and only where
    a gate waits for them.
    """

    def __init__(self, config: DQARConfig, layers: int, scheduler: Callable[[], Any]) -> None:
        self.config = config
        self.model_layers = layers
        self.layers = min(layers, config.num_layers)
        self.scheduler = scheduler
        self.caches_kv = config.reuse_mode == "kv"
        quantizer = KVQuantizer(config.quantization_mode, config.quantization_bits)
        self.cache = QuantizedKVCache(self.layers, quantizer)
        self.trajectory: Trajectory | None = None
        self._measured: list[tuple[int, int, Tensor]] = []  # step, layer, nats
        self._set_step(np.full(self.layers, Reason.WARMUP, np.int8), np.zeros(self.layers, bool))

    def begin_step(self, latent: Tensor, timestep: Any, prompt_length: int | None = None) -> None:
        """Decide the step that a call of the transformer on `latent` at `timestep` makes.

        `latent` is `[batch, ...]`; `timestep` a number or a tensor whose first element counts; it is
        read only where a generation begins.
        """
        run = self._follow(latent, timestep, prompt_length)
        run.step += 1
        self._read_entropies(run)
        row = run.gate.decide(run.blocked[run.step], run.known)
        run.reasons[run.step] = row
        wanted = self._wanted(run)
        for layer in np.flatnonzero((row != Reason.REUSED) & ~wanted):
            self.cache.drop(int(layer))
        self._set_step(row, wanted)

    def end_step(self) -> None:
        """Note the cache's size after the transformer has run; free it after the last step."""
        run = self.trajectory
        if run is None:
            return
        run.cache_bytes = max(run.cache_bytes, self.cache.nbytes)
        if run.last:
            self.cache.clear()

    def check(self) -> None:
        """Raise `ValueError` where the configuration does not fit the model's number of layers."""
        ReuseGate(self.config, self.layers)
        LayerScheduler(self.config, self.layers)

    def reset(self) -> None:
        """Forget the generation in progress and what it cached."""
        self.trajectory = None
        self._measured.clear()
        self.cache.clear()

    def needs_qkv(self, layer: int) -> bool:
        """Whether the layer's K, V or entropy is wanted at this step."""
        return self.measure[layer] or (self.caches_kv and self.keep[layer])

    def measure_entropy(self, layer: int, query: Tensor, key: Tensor, scale: float) -> None:
        """Measure on the device; the value is read with all others of the step."""
        heads = min(self.config.num_heads, query.shape[1])
        entropy = entropy_from_qk(query[:, :heads], key[:, :heads], scale, self.config.entropy_stride)
        assert self.trajectory is not None
        self._measured.append((self.trajectory.step, layer, entropy))

    def summary(self) -> Summary:
        """Describe the last generation. Raises `RuntimeError` when none has run."""
        run = self.trajectory
        if run is None:
            raise RuntimeError("nothing to sum up: no generation has run since dqar.enable")
        self._read_entropies(run)
        done = run.reasons[:, 0] != NOT_RUN
        table = self._widen(run.reasons[done] == Reason.REUSED, False)
        counts = Counter(Reason(code).label for code in run.reasons[done].flat)
        return Summary(
            steps=len(table),
            layers=self.model_layers,
            ratio=float(table.mean()),
            plan_ratio=float(allowed(self.config, run.snr, self.model_layers).mean()),
            map=table,
            entropy=self._widen(run.entropy[done], math.nan),
            snr=run.snr[done],
            reasons=dict(sorted(counts.items())),
            cache_bytes=run.cache_bytes,
        )

    def _follow(self, latent: Tensor, timestep: Any, prompt_length: int | None) -> Trajectory:
        """The generation that this step belongs to, begun anew where it is another than before."""
        run, timesteps = self.trajectory, self.scheduler().timesteps
        inputs = (latent.shape, latent.dtype, latent.device)
        if run is None or run.timesteps is not timesteps or run.last or run.inputs != inputs:
            run = self._start(timesteps, inputs, prompt_length)
            run.step = _position(timesteps, timestep) - 1
        return run

    def _start(self, timesteps: Any, inputs: tuple[Any, ...], prompt_length: int | None) -> Trajectory:
        self.reset()
        snr = schedule_snr(self.scheduler())
        shape = (len(snr), self.layers)
        self.trajectory = Trajectory(
            timesteps=timesteps,
            inputs=inputs,
            snr=snr,
            blocked=blocked_by_rules(self.config, snr, self.layers),
            gate=ReuseGate(self.config, self.layers, prompt_length),
            reasons=np.full(shape, NOT_RUN, dtype=np.int8),
            entropy=np.full(shape, np.nan),
            known=np.full(self.layers, np.nan),
            step=-1,
        )
        return self.trajectory

    def _wanted(self, run: Trajectory) -> npt.NDArray[np.bool_]:
        """Layers that the rules let the next step reuse: only their outputs are worth keeping."""
        if run.last:
            return np.zeros(self.layers, dtype=np.bool_)
        return run.blocked[run.step + 1] == Reason.REUSED

    def _set_step(self, row: npt.NDArray[np.int8], wanted: npt.NDArray[np.bool_]) -> None:
        # Plain tuples of bools: constants to torch.compile, and cheap to index in the hot path.
        measure = wanted & self.config.entropy_gate | self.config.trace_entropy
        self.reused = tuple((row == Reason.REUSED).tolist())
        self.keep = tuple(wanted.tolist())
        self.measure = tuple(np.broadcast_to(measure, row.shape).tolist())

    def _read_entropies(self, run: Trajectory) -> None:
        """Bring the entropies measured since the last reading to the host: one sync for all."""
        if not self._measured:
            return
        steps, layers, values = zip(*self._measured, strict=True)
        run.known[list(layers)] = torch.stack(values).tolist()
        run.entropy[list(steps), list(layers)] = run.known[list(layers)]
        self._measured.clear()

    def _widen(self, table: npt.NDArray[Any], fill: Any) -> npt.NDArray[Any]:
        """Add the columns of the model's layers that are not managed."""
        return np.pad(table, ((0, 0), (0, self.model_layers - self.layers)), constant_values=fill)


def _position(timesteps: Any, timestep: Any) -> int:
    """Where a generation that begins at `timestep` begins in the schedule; 0 if it is not in it."""
    first = float(torch.as_tensor(timestep).flatten()[0])
    found = np.flatnonzero(np.asarray(torch.as_tensor(timesteps).cpu(), dtype=np.float64) == first)
    return int(found[0]) if len(found) else 0
