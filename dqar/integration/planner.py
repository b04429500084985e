"""The plans that a configuration makes of a schedule, and the branches that follow them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dqar.config import DQARConfig
from dqar.core.quantization import KVQuantizer
from dqar.core.reuse_gate import ReuseGate
from dqar.core.solver_sensitivity import solver_sensitivity
from dqar.errors import invalid_value
from dqar.integration.branch import Branch
from dqar.integration.layer_store import LayerStore, Measurements
from dqar.integration.output_forecast import OutputForecaster
from dqar.integration.slots import Slots
from dqar.integration.step_decision import DecisionMaker, StepDecision
from dqar.integration.summary import Record
from dqar.integration.trajectory import Trajectory
from dqar.plan import BOTH, CONDITIONAL, NONE, FloatArray, Rules, positions, rules
from dqar.policy.layer_scheduler import AdaptiveLayerScheduler, LayerScheduler
from dqar.policy.mlp_policy import ReusePolicy
from dqar.policy.saved_plan import SavedPlan
from dqar.policy.warmup import warn_of_covered_warmup

REMEMBERED = 16  # plans

Warn = Callable[[str, str], None]  # an option's name, and its warning; once


class Planner:
    """What a configuration makes of a model's layers on any schedule.

    Args:
        config: What may be reused, and when.
        layers: Layers of the model.
        heads: Attention heads, for quantisation with a scale for each.
        mlps: MLPs of each layer; None = one each.
        policy: Decides in place of the policy that the configuration names.
        model: The model's name, for messages.

    Raises:
        ValueError: Where the configuration does not fit the model's layers, or its files cannot be used.
    """

    def __init__(
        self,
        config: DQARConfig,
        layers: int,
        heads: int | None,
        mlps: Sequence[int] | None,
        policy: ReusePolicy | None,
        model: str,
    ) -> None:
        self.saved = SavedPlan.load(config.plan_path) if config.plan_path else None
        self.config = config = config.replace(**self.saved.options) if self.saved else config
        self.layers, self.model = min(layers, config.num_layers), model
        self.policy = policy or _load_policy(config, self.layers)
        if self.saved is not None:
            self.saved.check(len(self.saved.branches), self.layers)
        LayerScheduler(config, self.layers), ReuseGate(config, self.layers)  # do they fit the model?
        # Whether no decision depends on data: a plan is then looked up instead of decided again.
        measures = config.needs_entropy or config.trace_entropy or config.adaptive or config.corrects
        self.static = not measures and self.policy is None
        self.slots = Slots(config.targets, self.layers, mlps, model)
        self._quantizers = quantizers(config, self.slots, heads)
        self._ahead: dict[Any, list[StepDecision]] = {}
        self._rules: dict[Any, Rules] = {}

    @property
    def may_run_one_branch(self) -> bool:
        """Whether some step may run the conditional branch alone, where there is guidance."""
        if self.saved is not None:
            return bool((self.saved.branches == CONDITIONAL).any())
        return self.config.guidance_interval > 1

    @property
    def may_reuse_layers(self) -> bool:
        """Whether some layer may reuse or is measured; else a step is only computed or skipped as a whole."""
        if self.saved is not None:
            reuses = bool(self.saved.reuse[self.saved.branches != NONE].any())
        else:
            reuses = not self.config.use_layer_scheduling or self.config.layer_fraction > 0
        return reuses or self.config.trace_entropy

    def refuse_halves(self) -> None:
        """Refuse a configuration that needs one half of a batch that cannot be split.

        Raises:
            InvalidValue: Naming the field that needs it.
        """
        allowed = f"{{}} for {self.model}, whose batch cannot be split"
        if self.may_run_one_branch:
            raise invalid_value("guidance_interval", self.config.guidance_interval, allowed.format(1))
        if self.config.cfg_sharing:
            raise invalid_value("cfg_sharing", True, allowed.format(False))

    def rules(self, run: Trajectory, guided: bool) -> Rules:
        """What depends on no data, remembered from one generation to the next.

        Args:
            run: The generation, for its schedule.
            guided: Whether it has two guidance branches.

        Returns:
            Tables that are shared between generations, not to be changed.
        """
        key = (run.snr.tobytes(), guided)
        if key not in self._rules:
            _make_room(self._rules)
            warn_of_covered_warmup(self.config, run.snr, self.layers)
            self._rules[key] = rules(self.config, run.snr, self.layers, guided, self.saved)
        return self._rules[key]

    def branch(
        self,
        run: Trajectory,
        guided: bool,
        prompt: int | None,
        inputs: Any,
        record: Record | None,
        warn: Warn,
    ) -> Branch:
        """A branch that begins at this step, where nothing is cached yet.

        Args:
            run: The generation.
            guided: Whether its batch is two guidance halves.
            prompt: Tokens of the prompt.
            inputs: Shape, dtype and device of its latents.
            record: What happened to it before, if it was called before.
            warn: Called with what has no effect.

        Returns:
            The branch, its first step not yet decided.
        """
        config = self.config
        maker = self._maker(run, guided, prompt)
        store = LayerStore(self.slots, self._quantizers, config.forecast_order)
        if guided and (config.cfg_sharing or (maker.branches == CONDITIONAL).any()):
            store.conditional = run.conditional
        elif config.cfg_sharing:
            warn("cfg_sharing", "has no effect: the batch is not two guidance halves")
        outputs = None
        if (maker.branches != BOTH).any() or (not guided and self.may_run_one_branch):
            conditional = run.conditional if guided else None
            outputs = OutputForecaster(conditional, config.output_order, config.output_correction)
        measurements = Measurements(self.layers, config.num_heads, config.entropy_stride)
        ahead = self._plan_ahead(run, guided, maker) if self.static else None
        record = record or Record(len(run), self.layers)
        return Branch(store, measurements, maker, ahead, record, inputs, outputs)

    def guide(self, run: Trajectory, branch: Branch) -> None:
        """Let a branch that began at the generation's first step leave out one of two calls of guidance.

        Args:
            run: The generation, at its second step.
            branch: One of the two branches that guidance calls.
        """
        branch.maker.follow(self.rules(run, True))
        if branch.ahead is not None:
            guided = self._maker(run, True, None, run.begin)
            branch.ahead = self._plan_ahead(run, True, guided)

    def sensitivity(self, run: Trajectory, warn: Warn) -> FloatArray:
        """What the corrections of skipped steps need to know of the solver; zeros without corrections.

        Args:
            run: The generation, for its scheduler and first step.
            warn: Called with `output_correction` where the scheduler cannot be run on scalars.

        Returns:
            `[steps]`; zeros switch the corrections off.
        """
        none = np.zeros(len(run))
        if not self.config.output_correction or (self.rules(run, True).branches == BOTH).all():
            return none
        try:
            return solver_sensitivity(run.scheduler, run.begin)
        except Exception as error:
            why = f"{type(run.scheduler).__name__} cannot be run on scalars ({type(error).__name__}: {error})"
            warn("output_correction", f"has no effect: {why}")
            return none

    def _maker(
        self, run: Trajectory, guided: bool, prompt_length: int | None, begin: int | None = None
    ) -> DecisionMaker:
        config = self.config
        adaptive = AdaptiveLayerScheduler(self.layers, config.adaptive_tolerance) if config.adaptive else None
        gate = ReuseGate(config, self.layers, prompt_length, self.policy, adaptive)
        position = positions(config, run.snr)
        begin = run.step if begin is None else begin
        return DecisionMaker(config, self.slots, self.rules(run, guided), position, begin, gate)

    def _plan_ahead(self, run: Trajectory, guided: bool, maker: DecisionMaker) -> list[StepDecision]:
        """The decisions of a static plan, remembered from one generation to the next."""
        key = (run.snr.tobytes(), maker.begin, guided)
        if key not in self._ahead:
            _make_room(self._ahead)
            self._ahead[key] = maker.ahead()
        return self._ahead[key]


def _make_room(remembered: dict[Any, Any]) -> None:
    if len(remembered) == REMEMBERED:
        remembered.pop(next(iter(remembered)))


def quantizers(config: DQARConfig, slots: Slots, heads: int | None) -> list[KVQuantizer]:
    """The quantiser of each slot: its layer's.

    Args:
        config: Mode and bits; bits for all layers, or for each.
        slots: The model's cache slots.
        heads: Attention heads, for a scale for each; None = not known.

    Returns:
        One for each slot; slots of one layer share theirs.

    Raises:
        ValueError: `quantization_bits` has another length than there are layers.
    """
    bits, layers = config.quantization_bits, slots.layers
    each = bits if isinstance(bits, tuple) else (bits,) * layers
    if len(each) != layers:
        raise ValueError(
            f"quantization_bits has {len(each)} entries; allowed: one for each of the {layers} layers"
        )
    of_layers = [KVQuantizer(config.quantization_mode, b, heads) for b in each]
    return [of_layers[slots.layer_of(slot)] for slot in range(slots.count)]


def _load_policy(config: DQARConfig, layers: int) -> ReusePolicy | None:
    if not config.use_learned_policy or config.policy_path is None:
        return None
    policy = ReusePolicy.load(config.policy_path)
    expected = getattr(policy, "num_layers", layers)
    if expected != layers:
        raise ValueError(f"policy_path = {config.policy_path!r} is for {expected} layers; allowed: {layers}")
    return policy
