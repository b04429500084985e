"""Along a trajectory: recognise its calls, decide each step once, and sum up what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from dqar.config import DQARConfig
from dqar.core.quantization import KVQuantizer
from dqar.core.reasons import Reason
from dqar.core.reuse_gate import ReuseGate, Signals
from dqar.core.solver_sensitivity import solver_sensitivity
from dqar.errors import invalid_value
from dqar.integration.adapter import Call
from dqar.integration.branch import Branch
from dqar.integration.caller import calling_pipeline
from dqar.integration.layer_store import LayerStore, Measurements
from dqar.integration.output_forecast import OutputForecaster
from dqar.integration.slots import Slots
from dqar.integration.step_decision import DecisionMaker, StepDecision
from dqar.integration.summary import Record, Summary, summarize
from dqar.integration.sync import FirstLook, first_look, host_value, to_host
from dqar.integration.trajectory import StepCounter, Trajectory
from dqar.plan import BOTH, CONDITIONAL, NONE, FloatArray, Rules, allowed, positions, rules
from dqar.policy.layer_scheduler import AdaptiveLayerScheduler, LayerScheduler
from dqar.policy.mlp_policy import ReusePolicy
from dqar.policy.saved_plan import SavedPlan
from dqar.policy.warmup import warn_of_covered_warmup
from dqar.utils.warn import warn

MAX_BRANCHES = 8  # calls a step; more are no guidance branches, but a loop that never steps the scheduler
REMEMBERED = 16  # static plans


class DQARManager:
    """Decides each step of a generation once, and keeps what its branches share.

    `scheduler` returns the diffusers scheduler in use now, so that a pipeline may change its own. A
    generation begins when that scheduler's `timesteps` were set again, or its first one comes again; state
    never leaks from one to the next. A step is over when the scheduler has made it: until then further calls
    are other guidance branches, each with a state of its own. Steps are counted, not read from a device:
    past the first step the only host sync is the one that reads what a gate waits for.

    Args:
        config: What may be reused, and when.
        layers: Layers of the model.
        scheduler: Returns the scheduler in use.
        heads: Attention heads, for quantisation with a scale for each.
        mlps: MLPs of each layer; None = one each.
        conditional: Index of the conditional half in a guided batch; None = a batch cannot be split.
        pipe: The pipeline whose calls are meant; None = those of any that uses the scheduler.
        policy: Decides in place of the policy that the configuration names.
        model: The model's name, for messages.

    Raises:
        ValueError: Where the configuration does not fit the model's layers, or its files cannot be used.
    """

    active: Branch | None = None

    def __init__(
        self,
        config: DQARConfig,
        layers: int,
        scheduler: Callable[[], Any],
        heads: int | None = None,
        *,
        mlps: Sequence[int] | None = None,
        conditional: int | None = 0,
        pipe: Any = None,
        policy: ReusePolicy | None = None,
        model: str = "the model",
    ) -> None:
        self.plan = SavedPlan.load(config.plan_path) if config.plan_path else None
        self.config = config = config.replace(**self.plan.options) if self.plan else config
        self.model_layers, self.layers = layers, min(layers, config.num_layers)
        self.scheduler, self.conditional, self.pipe, self.model = scheduler, conditional, pipe, model
        self.graphed, self.observed = False, True
        self.policy = policy or _load_policy(config, self.layers)
        if self.plan is not None:
            self.plan.check(len(self.plan.branches), self.layers)
        LayerScheduler(config, self.layers), ReuseGate(config, self.layers)  # do they fit the model?
        self.slots = Slots(config.targets, self.layers, mlps, model)
        self._quantizers = _quantizers(config, self.slots, heads)
        self.others: list[DQARManager] = []  # of the pipeline's other transformers, which share its steps
        self._counters: list[StepCounter] = []
        self._ahead: dict[Any, list[StepDecision]] = {}
        self._known_rules: dict[Any, Rules] = {}
        self._warned: set[str] = set()
        self.reset()

    @property
    def static(self) -> bool:
        """Whether no decision depends on data: a plan is then looked up instead of decided again."""
        config = self.config
        measures = config.needs_entropy or config.trace_entropy or config.adaptive or config.corrects
        return not measures and self.policy is None

    @property
    def branches(self) -> int:
        """Guidance branches that the current call runs."""
        return BOTH if self.active is None else self.active.decision.branches

    @property
    def outputs(self) -> OutputForecaster | None:
        """The output forecaster of the generation's first branch, where it has one."""
        run = self.trajectory
        return run.main.outputs if run is not None and run.branches else None

    def begin_step(self, call: Call, context: str | None = None) -> bool:
        """Decide what a call of the transformer does.

        Args:
            call: What the call is given.
            context: The name of the pipeline's `cache_context`, where it set one.

        Returns:
            Whether the call is one of a generation that is followed; else the model runs untouched.
        """
        self.active = None
        run = self._follow(call)
        if run is None:
            return False
        branch = self._branch(run, call, context)
        if branch is None:
            return False
        latent = call.latent if isinstance(call.latent, torch.Tensor) else call.latent[0]
        signals = None if self.static else self._signals(run, branch, latent)
        branch.begin(run.step, signals, latent.device)
        self.active = branch
        return True

    def runs(self) -> bool:
        """Whether the current call runs the model, for one branch or for both."""
        run, branch = self.trajectory, self.active
        assert run is not None and branch is not None
        if run.pair and branch is run.pair[1] and branch.decision.branches != BOTH:
            return not (run.pair[0].outputs and run.pair[0].outputs.added.entries)
        return branch.decision.branches != NONE

    def inputs(self, values: dict[str, Any], batch: int) -> dict[str, Any]:
        """The transformer's inputs at this call, of the conditional half if it runs alone."""
        branch = self.active
        assert branch is not None
        halves = branch.store.conditional is not None and branch.decision.branches == CONDITIONAL
        return branch.outputs.halved(values, batch) if branch.outputs and halves else values

    def end_step(self, output: Any = None) -> Any:
        """Note the transformer's output and the caches' size; free the caches after the last step.

        Args:
            output: What the transformer returned, where it ran.

        Returns:
            The output for all guidance branches, of which some or none may have run.
        """
        run, branch = self.trajectory, self.active
        if run is None or branch is None:
            return output
        ran = self.runs()
        self.active = None
        output = self._completed(run, branch, output, ran)
        branch.end(self.graphed, self.observed)
        if run.last:
            if run.pair is None or branch is run.pair[1]:
                for ended in run.pair or (branch,):
                    ended.free()
            else:
                branch.store.cache.clear()
        return output

    def abandon(self) -> None:
        """Forget the current call: it failed."""
        self.active = None

    def reset(self) -> None:
        """Forget the generation in progress and what it cached."""
        self.trajectory: Trajectory | None = None
        self.sensitivity: FloatArray = np.zeros(0)
        self.active = None

    def detach(self) -> None:
        """Forget everything, and give the schedulers their own `step` back."""
        self.reset()
        for counter in self._counters:
            counter.remove()
        self._counters.clear()

    def summary(self) -> Summary:
        """Describe the last generation.

        Raises:
            RuntimeError: When none has run.
        """
        run = self.trajectory
        if run is None or not run.branches:
            raise RuntimeError("nothing to sum up: no generation has run since dqar.enable")
        self._read(run)
        guided = run.guided or run.pair is not None
        planned = allowed(self.config, run.snr, self.model_layers, guided, self.plan)
        records = [branch.record for branch in run.branches.values()]
        return summarize(records, run.snr, self.model_layers, float(planned.mean()))

    # Recognising calls

    def _follow(self, call: Call) -> Trajectory | None:
        """The generation at the step that a call belongs to; None where it belongs to none."""
        if call.latent is None or call.timestep is None:
            return None
        caller = calling_pipeline(2)
        if self.pipe is not None and caller.pipe is not None and caller.pipe is not self.pipe:
            return None
        scheduler, run = self.scheduler(), self.trajectory
        if scheduler.timesteps is None:
            return None
        value = host_value(call.timestep)
        if run is not None and run.scheduler is scheduler and run.timesteps is scheduler.timesteps:
            position = self._position(run)
            if position == run.step and run.at(position, value):
                return run
            if position == run.step + 1 and position < len(run) and run.at(position, value):
                return self._next(run)
            if position == run.step and value is not None and run.scale and run.at(run.step + 1, value):
                run.unstepped += 1  # the loop has a solver of its own, and the timestep shows it
                return self._next(run)
            return self._again(run, call)
        look = first_look(call.latent, call.timestep)
        return None if np.isnan(look.timestep) else self._start(call, look, caller.doubles(_batch(call)))

    def _position(self, run: Trajectory) -> int:
        """The step that the scheduler is at."""
        index = getattr(run.scheduler, "step_index", None)
        if hasattr(type(run.scheduler), "step_index"):
            return (run.begin if index is None else int(index)) + run.unstepped
        return run.begin + self._steps_made(run.scheduler) - run.made + run.unstepped

    def _steps_made(self, scheduler: Any) -> int:
        if hasattr(type(scheduler), "step_index"):
            return 0
        counter = vars(scheduler).get("step")
        if not isinstance(counter, StepCounter):
            counter = StepCounter(scheduler)
            counter.install()
        if counter not in self._counters:
            self._counters.append(counter)
        return counter.made

    def _again(self, run: Trajectory, call: Call) -> Trajectory | None:
        """The generation that begins with this call, if it is at the schedule's first timestep again."""
        if getattr(run.scheduler, "step_index", None) not in (None, run.begin):
            return None
        look = first_look(call.latent, call.timestep)
        if not run.at(run.begin, look.timestep):
            return None
        return self._start(call, look, calling_pipeline(3).doubles(_batch(call)))

    def _start(self, call: Call, look: FirstLook, doubled: bool | None) -> Trajectory:
        self.reset()
        scheduler = self.scheduler()
        # Latents may be equal by chance, as from one seed: a pipeline knows whether it doubled them.
        guided = look.equal_halves and doubled is not False
        if guided and self.conditional is None:
            self._refuse_halves()
            guided = False
        run = Trajectory.start(scheduler, look, self._steps_made(scheduler), guided, self.conditional)
        self.trajectory = run
        shared = [o for o in self.others if o.trajectory and o.trajectory.timesteps is run.timesteps]
        for other in shared:
            other._release()
        self.sensitivity = shared[0].sensitivity if shared else self._solver_sensitivity(run)
        return run

    def _refuse_halves(self) -> None:
        """Raises `ValueError` where the configuration asks for one half of a batch that cannot be split."""
        allowed = f"{{}} for {self.model}, whose batch cannot be split"
        if self._may_run_one_branch:
            raise invalid_value("guidance_interval", self.config.guidance_interval, allowed.format(1))
        if self.config.cfg_sharing:
            raise invalid_value("cfg_sharing", True, allowed.format(False))

    def _next(self, run: Trajectory) -> Trajectory:
        """The next step of the generation."""
        run.step += 1
        run.calls = {}
        if run.step == run.begin + 1 and not run.guided and self._may_run_one_branch:
            self._settle_guidance(run)
        return run

    def _settle_guidance(self, run: Trajectory) -> None:
        """After the first step it is known whether guidance takes calls of its own."""
        if run.pair is None:
            self._warn(
                "guidance_interval", "has no effect: this generation does not run two guidance branches"
            )
            return
        for branch in run.pair:
            branch.maker.follow(self._rules(run, True))
            if branch.ahead is not None:
                branch.ahead = self._plan_ahead(
                    run, branch.maker.begin, True, self._maker(run, branch.maker.begin, True, None)
                )

    # Branches

    def _branch(self, run: Trajectory, call: Call, context: str | None) -> Branch | None:
        """The branch that a call belongs to: that of its context, else of its number at this step."""
        number = run.calls.get(context, 0)
        key = (context, number)
        run.calls[context] = number + 1
        inputs = _inputs(call)
        branch = run.branches.get(key)
        if branch is None and len(run.branches) >= MAX_BRANCHES:
            self._warn(
                "loop", f"{MAX_BRANCHES} calls at one step of the scheduler: further ones reuse nothing"
            )
            return None
        if branch is None or branch.inputs != inputs or branch.step != run.step - 1:
            # Another shape, or a gap: what is cached is not of the step before.
            branch = self._new_branch(run, call, inputs, branch.record if branch else None)
            replaced = key in run.branches
            run.branches[key] = branch
            if not replaced:
                self._pair(run, branch, key)
        return branch

    def _pair(self, run: Trajectory, branch: Branch, key: tuple[str | None, int]) -> None:
        """Recognise the two calls of guidance at the first step, where one of them may be left out."""
        first = next(iter(run.branches))
        if not self._may_run_one_branch or len(run.branches) != 2 or run.guided or run.step != run.begin:
            return
        if run.main.inputs != branch.inputs:
            return
        if _is_unconditional(first[0]):
            self._warn("guidance_interval", "has no effect: the unconditional branch is called first")
            return
        if key[0] is None:
            self._warn("guidance_interval", "takes the first of two calls a step for the conditional branch")
        run.pair = (run.main, branch)

    def _new_branch(self, run: Trajectory, call: Call, inputs: Any, record: Record | None) -> Branch:
        config, guided = self.config, run.guided
        maker = self._maker(run, run.step, guided, call.prompt_length)
        ahead = self._plan_ahead(run, run.step, guided, maker) if self.static else None
        store = LayerStore(self.slots, self._quantizers, config.forecast_order)
        some = bool((maker.branches == CONDITIONAL).any())
        if guided and (config.cfg_sharing or some):
            store.conditional = run.conditional
        elif config.cfg_sharing:
            self._warn("cfg_sharing", "has no effect: the batch is not two guidance halves")
        outputs = None
        if (maker.branches != BOTH).any() or (not guided and self._may_run_one_branch):
            half = run.conditional if guided else None
            outputs = OutputForecaster(half, config.output_order, config.output_correction)
        return Branch(
            store,
            Measurements(self.layers, config.num_heads, config.entropy_stride),
            maker,
            ahead,
            record or Record(len(run), self.layers),
            inputs,
            outputs,
        )

    @property
    def _may_run_one_branch(self) -> bool:
        if self.plan is not None:
            return bool((self.plan.branches == CONDITIONAL).any())
        return self.config.guidance_interval > 1

    def _rules(self, run: Trajectory, guided: bool) -> Rules:
        """What depends on no data, remembered from one generation to the next."""
        key = (run.snr.tobytes(), guided)
        if key not in self._known_rules:
            _make_room(self._known_rules)
            warn_of_covered_warmup(self.config, run.snr, self.layers)
            self._known_rules[key] = rules(self.config, run.snr, self.layers, guided, self.plan)
        return self._known_rules[key]

    def _maker(self, run: Trajectory, begin: int, guided: bool, prompt_length: int | None) -> DecisionMaker:
        config = self.config
        adaptive = AdaptiveLayerScheduler(self.layers, config.adaptive_tolerance) if config.adaptive else None
        gate = ReuseGate(config, self.layers, prompt_length, self.policy, adaptive)
        position = positions(config, run.snr)
        return DecisionMaker(config, self.slots, self._rules(run, guided), position, begin, gate)

    def _plan_ahead(
        self, run: Trajectory, begin: int, guided: bool, maker: DecisionMaker
    ) -> list[StepDecision]:
        """The decisions of a static plan, remembered from one generation to the next."""
        key = (run.snr.tobytes(), begin, guided)
        if key not in self._ahead:
            _make_room(self._ahead)
            self._ahead[key] = maker.ahead()
        return self._ahead[key]

    # Outputs

    def _completed(self, run: Trajectory, branch: Branch, output: Any, ran: bool) -> Any:
        if run.pair and branch is run.pair[1]:
            main = run.pair[0].outputs
            return (
                output if main is None else main.unconditional(output, branch.position(self.sensitivity), ran)
            )
        outputs = branch.outputs
        if outputs is None:
            return output
        step, branches = branch.position(self.sensitivity), branch.decision.branches
        if branches == NONE:
            return outputs.forecast(step)
        if self.config.corrects:
            branch.measurements.deviation = outputs.deviation(output, step.position, branches)
        return outputs.completed(output, step, branches)

    def _solver_sensitivity(self, run: Trajectory) -> FloatArray:
        """What the corrections of skipped steps need to know of the solver; zeros without corrections."""
        none = np.zeros(len(run))
        runs_less = (self._rules(run, True).branches != BOTH).any()
        if not self.config.output_correction or not runs_less:
            return none
        try:
            return solver_sensitivity(run.scheduler, run.begin)
        except Exception as error:
            why = f"{type(run.scheduler).__name__} cannot be run on scalars ({type(error).__name__}: {error})"
            self._warn("output_correction", f"has no effect: {why}")
            return none

    # Data

    def _signals(self, run: Trajectory, branch: Branch, latent: torch.Tensor) -> Signals:
        """What is known when a step is decided; what the step before measured is read at its first call."""
        if run.read_at != run.step:
            run.read_at = run.step
            wants_norm = self.policy is not None and (branch.maker.blocked[run.step] == Reason.REUSED).any()
            norm = latent.float().flatten(1).norm(dim=1).mean() if wants_norm else None
            run.latent_norm = self._read(run, norm)
        return Signals(
            branch.maker.known_entropy,
            run.snr[run.step],
            run.time[run.step],
            run.latent_norm,
            branch.last_deviation,
        )

    def _read(self, run: Trajectory, norm: torch.Tensor | None = None) -> float:
        """Bring what all branches measured, and `norm`, to the host: one sync for all."""
        branches = list(run.branches.values())
        measured = [branch.measurements for branch in branches]
        groups = [group for m in measured for group in (m.entropy, m.change, [m.deviation])]
        *found, [value] = to_host(*groups, [norm])
        expected = self.plan.expected if self.plan else np.ones(len(run))
        for number, branch in enumerate(branches):
            entropy, change, [deviation] = found[3 * number : 3 * number + 3]
            branch.note_read(entropy, change, deviation, expected)
            branch.measurements.clear()
        return float(value)

    def _release(self) -> None:
        """Free what is cached: another transformer takes over the generation."""
        if self.trajectory is not None:
            for branch in self.trajectory.branches.values():
                branch.free()

    def _warn(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            warn(f"{about} {message}")


def _make_room(remembered: dict[Any, Any]) -> None:
    if len(remembered) == REMEMBERED:
        remembered.pop(next(iter(remembered)))


def _is_unconditional(name: str | None) -> bool:
    return name is not None and ("uncond" in name or "neg" in name) and "cond_uncond" not in name


def _batch(call: Call) -> int:
    return len(call.latent)


def _inputs(call: Call) -> Any:
    """Shape, dtype and device of the latents: another one cannot use what was cached."""
    latent = call.latent
    if isinstance(latent, torch.Tensor):
        return latent.shape, latent.dtype, latent.device
    return tuple([(t.shape, t.dtype, t.device) for t in latent])


def _quantizers(config: DQARConfig, slots: Slots, heads: int | None) -> list[KVQuantizer]:
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
