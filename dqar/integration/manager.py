"""The state that a transformer's layers share along a trajectory, and the decision of each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqar.cache.forecast import Nodes
from dqar.cache.kv_cache import LayerWiseKVCache
from dqar.config import DQARConfig
from dqar.core.entropy import entropy_from_qk
from dqar.core.quantization import KVQuantizer
from dqar.core.response import solver_response
from dqar.core.reuse_gate import Reason, ReuseGate, Signals
from dqar.core.snr import as_array, schedule_snr
from dqar.integration.host import begins_at, first_look, to_host
from dqar.integration.outputs import Outputs, Place
from dqar.integration.trajectory import Summary, Trajectory, summarize
from dqar.plan import BOTH, CONDITIONAL, NONE, allowed, positions, rules
from dqar.policy.layer_scheduler import AdaptiveLayerScheduler, LayerScheduler
from dqar.policy.mlp_policy import ReusePolicy
from dqar.policy.saved_plan import SavedPlan

Layers = npt.NDArray[np.bool_]  # [layers]


class DQARManager:
    """Decides once a step which layers are reused, and keeps what they share.

    `scheduler` returns the diffusers scheduler in use now, so that a pipeline may change its own.
    A generation begins when that scheduler's `timesteps` were set anew, or have all been used; a
    changed latent shape, dtype or device begins one too. Steps are counted, not read from a tensor:
    past the first step the only host sync is the one that reads what a gate waits for.

    `reused`, `keep`, `measure`, `compare` and `known` are this step's orders. They are plain tuples:
    constants to torch.compile, and cheap to index in the hot path. `reused` and `keep` are `[sites]`: a
    layer's attention is the site of its own number, its MLP that of `layers` more. The others are
    `[layers]`; `known` counts the differences that a forecast takes. `graphed` says that the layers run
    in CUDA graphs: what they leave is then copied before the next replay writes over it.

    Raises `ValueError` where the configuration does not fit the model's number of layers, or its
    policy file cannot be used.
    """

    half: int | None  # the guidance half that entries hold, if they hold one
    branches: int  # guidance branches that run at this step
    outputs: Outputs | None  # kept where some step leaves out a branch or all
    _deviation: Tensor | None  # of the last step that ran

    def __init__(
        self, config: DQARConfig, layers: int, scheduler: Callable[[], Any], heads: int | None = None
    ) -> None:
        self.plan = SavedPlan.load(config.plan_path) if config.plan_path else None
        self.config = config = config.replace(**self.plan.options) if self.plan else config
        self.model_layers = layers
        self.graphed = False
        self.layers = min(layers, config.num_layers)
        self.scheduler = scheduler
        self.caches_kv = config.reuse_mode == "kv"
        self.policy = _load_policy(config, self.layers)
        if self.plan is not None:
            self.plan.check(len(self.plan.branches), self.layers)
        LayerScheduler(config, self.layers), ReuseGate(config, self.layers)  # do they fit the model?
        self.targets = _targets(config, self.layers)
        self.cache = LayerWiseKVCache(_quantizers(config, self.layers, heads) * 2)
        self.reset()

    def begin_step(self, latent: Tensor, timestep: Any, prompt_length: int | None = None) -> None:
        """Decide the step that a call of the transformer on `latent` at `timestep` makes.

        `latent` is `[batch, ...]`; `timestep` a number or a tensor whose first element counts. Both
        are read only where a generation begins, or a policy asks for the latent's norm.
        """
        run = self._follow(latent, timestep, prompt_length)
        blocked = run.blocked[run.step + 1]
        signals = self._read(run, latent if self.policy and (blocked == Reason.REUSED).any() else None)
        run.step += 1
        run.span = run.gate.age + 1
        reasons = run.reasons[run.step] = run.gate.decide(blocked, signals)
        if (reasons == Reason.DEVIATION).any():
            run.branches[run.step] = BOTH
        self.branches = int(run.branches[run.step])
        if self.branches == NONE:
            return
        due = run.step - run.measured_at >= self.config.entropy_interval
        wanted = run.wanted(self.config.forecast_order)
        self._measure(wanted & due)
        # What is measured now may allow it; what is known already may have forbidden it.
        hopeless = run.gate.forbids(run.known_entropy) & ~np.array(self.measure)
        self._order(reasons == Reason.REUSED, wanted & ~hopeless)
        if self.config.forecast_order:
            self._foretell(run.position[run.step], latent.device)

    def end_step(self, output: Any = None) -> Any:
        """Note what the transformer said and the caches' size; free them after the last step.

        Returns the transformer's output for all guidance branches, of which some or none may have run
        (`branches`); where none did, `output` is not given.
        """
        run = self.trajectory
        if run is None:
            return output
        if self.outputs is not None:
            output = self._completed(self.outputs, output, run.place)
        if self.graphed:
            for site in np.flatnonzero(np.array(self.keep) & ~np.array(self.reused)):
                self.cache.own(int(site))
        held = self.cache.nbytes + (self.outputs.nbytes if self.outputs else 0)
        run.cache_bytes = max(run.cache_bytes, held)
        if run.last:
            self.cache.clear()
            self.outputs = None
        return output

    def reset(self) -> None:
        """Forget the generation in progress and what it cached."""
        self.trajectory: Trajectory | None = None
        self._clear_measurements()
        self.cache.clear()
        self.keep = (False,) * (2 * self.layers)
        self.half, self.branches, self.outputs = None, BOTH, None
        self.nodes = Nodes(self.layers, self.config.forecast_order)
        self.known, self.weights = (0,) * self.layers, torch.zeros(self.layers, 0)
        nothing = np.zeros(self.layers, dtype=np.bool_)
        self._measure(nothing)
        self._order(nothing, nothing)

    def note(self, site: int, *fresh: Tensor) -> None:
        """Compare what was computed at a site with the entry it replaces, and keep it, as ordered."""
        layer = site % self.layers
        if self.compare[layer] and site == self.targets[layer][0]:
            self.measure_change(layer, site, fresh[0])
        if self.keep[site]:
            self.store(site, *fresh)

    def store(self, site: int, *tensors: Tensor) -> None:
        """Keep an output, or K and V, of which `[batch, ...]` one guidance half if entries hold one."""
        if self.half is not None and self.branches == BOTH:
            # A copy: a view of one half would keep the other half's memory alive.
            tensors = tuple([t.chunk(2)[self.half].clone() for t in tensors])
        if self.config.forecast_order:
            self.cache.extend(site, self._row(site), *tensors)
        else:
            self.cache.store(site, *tensors)

    def load(self, site: int) -> tuple[Tensor, ...]:
        """Return what `store` kept, or what follows from it at this step, for the whole batch."""
        tensors = self.cache.load(site, self._row(site) if self.config.forecast_order else ())
        if self.half is not None and self.branches == BOTH:
            tensors = tuple([torch.cat((t, t)) for t in tensors])
        return tensors

    def needs_qkv(self, layer: int) -> bool:
        """Whether the layer's K, V or entropy is wanted at this step."""
        return self.measure[layer] or (self.caches_kv and (self.keep[layer] or self.compare[layer]))

    def inputs(self, values: dict[str, Any], batch: int) -> dict[str, Any]:
        """The transformer's inputs at this step, of the conditional branch if it runs alone."""
        alone = self.outputs is not None and self.branches == CONDITIONAL
        return self.outputs.halved(values, batch) if self.outputs and alone else values

    def measure_entropy(self, layer: int, query: Tensor, key: Tensor, scale: float) -> None:
        """Measure on the device; the value is read with all others of the step."""
        heads = min(self.config.num_heads, query.shape[1])
        query, key = query[:, :heads], key[:, :heads]
        self._entropy[layer] = entropy_from_qk(query, key, scale, self.config.entropy_stride)

    def measure_change(self, layer: int, site: int, fresh: Tensor) -> None:
        """Measure how far a layer's entry is from what was just computed, on the device."""
        cached = self.load(site)[0]
        self._change[layer] = ((fresh - cached).float().norm() / fresh.float().norm()).clamp_max(1e6)

    def summary(self) -> Summary:
        """Describe the last generation. Raises `RuntimeError` when none has run."""
        run = self.trajectory
        if run is None:
            raise RuntimeError("nothing to sum up: no generation has run since dqar.enable")
        self._read(run)
        planned = allowed(self.config, run.snr, self.model_layers, run.guided, self.plan)
        plan_ratio = float(planned.mean())
        return summarize(run, self.model_layers, plan_ratio)

    def _follow(self, latent: Tensor, timestep: Any, prompt_length: int | None) -> Trajectory:
        """The generation that this step belongs to, begun anew where it is another than before."""
        run, timesteps = self.trajectory, self.scheduler().timesteps
        inputs = (latent.shape, latent.dtype, latent.device)
        if run is None or run.timesteps is not timesteps or run.last or run.inputs != inputs:
            first, guided = first_look(latent, timestep)
            run = self._start(timesteps, inputs, prompt_length, guided)
            begin = begins_at(timesteps, first)
            run.begin(begin)
            # DiTPipeline puts the conditional half first, text pipelines put it second.
            conditional = (0 if prompt_length is None else 1) if guided else None
            if self.config.cfg_sharing or (run.branches == CONDITIONAL).any():
                self.half = conditional
            if (run.branches != BOTH).any():
                self.outputs = Outputs(conditional, self.config.output_order, self.config.output_correction)
                if self.config.output_correction:
                    run.response = solver_response(self.scheduler(), begin)
        return run

    def _start(
        self, timesteps: Any, inputs: tuple[Any, ...], prompt_length: int | None, guided: bool
    ) -> Trajectory:
        self.reset()
        config, scheduler = self.config, self.scheduler()
        snr = schedule_snr(scheduler)
        adaptive = AdaptiveLayerScheduler(self.layers, config.adaptive_tolerance) if config.adaptive else None
        decided = rules(config, snr, self.layers, guided, self.plan)
        self.trajectory = Trajectory(
            timesteps=timesteps,
            inputs=inputs,
            snr=snr,
            time=as_array(timesteps) / scheduler.config.num_train_timesteps,
            position=positions(config, snr),
            response=np.zeros(len(snr)),
            guided=guided,
            branches=decided.branches,
            blocked=decided.blocked,
            expected=self.plan.expected if self.plan else np.ones(len(snr)),
            gate=ReuseGate(config, self.layers, prompt_length, self.policy, adaptive),
            step=-1,
        )
        return self.trajectory

    def _completed(self, outputs: Outputs, output: Any, place: Place) -> Any:
        if self.branches == NONE:
            return outputs.foretold(place)
        if self.config.corrects:
            self._deviation = outputs.deviation(output, place.position, self.branches)
        return outputs.completed(output, place, self.branches)

    def _measure(self, due: Layers) -> None:
        measure = due & self.config.needs_entropy | self.config.trace_entropy
        self.measure = tuple(measure.tolist())

    def _order(self, reused: Layers, wanted: Layers) -> None:
        kept = np.array([self.keep[sites[0]] for sites in self.targets])
        compare = kept & ~reused & self.config.adaptive
        # Before it is computed again: never two of a layer at once, unless a forecast needs the old one.
        held = wanted if self.config.forecast_order else np.zeros_like(wanted)
        for layer in np.flatnonzero(~reused & ~compare & ~held):
            self.nodes.forget(int(layer))
            for site in self.targets[layer]:
                self.cache.drop(site)
        self.reused = self._by_site(reused)
        self.keep = self._by_site(wanted)
        self.compare = tuple(compare.tolist())

    def _by_site(self, layers: Layers) -> tuple[bool, ...]:
        sites = [False] * (2 * self.layers)
        for layer in np.flatnonzero(layers):
            for site in self.targets[layer]:
                sites[site] = True
        return tuple(sites)

    def _foretell(self, position: float, device: torch.device) -> None:
        """Work out on the host what each layer's forecast takes at this step, and bring it to the device."""
        reused = [self.reused[sites[0]] for sites in self.targets]
        rows = [self.nodes.row(layer, position, reused[layer]) for layer in range(self.layers)]
        self.known = tuple([len(row) for row in rows])
        order = self.config.forecast_order
        table = torch.tensor([row + [0.0] * (order - len(row)) for row in rows])
        # Pinned, so that the host need not wait for the copy.
        pinned = table.pin_memory() if device.type == "cuda" else table
        self.weights = pinned.to(device, non_blocking=True)
        for layer, sites in enumerate(self.targets):
            if self.keep[sites[0]] and not reused[layer]:
                self.nodes.computed(layer, position)

    def _row(self, site: int) -> tuple[Tensor, ...]:
        layer = site % self.layers
        return tuple([self.weights[layer, k] for k in range(self.known[layer])])

    def _clear_measurements(self) -> None:
        self._entropy: list[Tensor | None] = [None] * self.layers
        self._change: list[Tensor | None] = [None] * self.layers
        self._deviation = None

    def _read(self, run: Trajectory, latent: Tensor | None = None) -> Signals:
        """Bring what the last step measured, and the norm of `latent`, to the host: one sync for all."""
        norm = latent.float().flatten(1).norm(dim=1).mean() if latent is not None else None
        entropy, change, (latent_norm, off) = to_host(self._entropy, self._change, [norm, self._deviation])
        self._clear_measurements()
        measured = ~np.isnan(entropy)
        run.known_entropy[measured] = run.entropy[run.step, measured] = entropy[measured]
        run.measured_at[measured] = run.step
        if run.gate.adaptive is not None:
            run.gate.adaptive.observe(change, run.span)
        coming = min(run.step + 1, len(run.snr) - 1)
        if not np.isnan(off):
            run.deviation[run.step] = off
            run.last_deviation = off / run.expected[run.step]
        return Signals(run.known_entropy, run.snr[coming], run.time[coming], latent_norm, run.last_deviation)


def _targets(config: DQARConfig, layers: int) -> list[tuple[int, ...]]:
    """The sites of each layer that a reuse serves: its attention, its MLP, or both."""
    each = config.targets if isinstance(config.targets, tuple) else (config.targets,) * layers
    if len(each) != layers:
        raise ValueError(f"targets has {len(each)} entries; allowed: one for each of the {layers} layers")
    sites = {"attention": (0,), "mlp": (layers,), "both": (0, layers)}
    return [tuple([layer + site for site in sites[target]]) for layer, target in enumerate(each)]


def _quantizers(config: DQARConfig, layers: int, heads: int | None) -> list[KVQuantizer]:
    bits = config.quantization_bits
    each = bits if isinstance(bits, tuple) else (bits,) * layers
    if len(each) != layers:
        raise ValueError(
            f"quantization_bits has {len(each)} entries; allowed: one for each of the {layers} layers"
        )
    return [KVQuantizer(config.quantization_mode, b, heads) for b in each]


def _load_policy(config: DQARConfig, layers: int) -> ReusePolicy | None:
    if not config.use_learned_policy or config.policy_path is None:
        return None
    policy = ReusePolicy.load(config.policy_path)
    expected = getattr(policy, "num_layers", layers)
    if expected != layers:
        raise ValueError(f"policy_path = {config.policy_path!r} is for {expected} layers; allowed: {layers}")
    return policy
