"""Along a trajectory: recognise its calls, decide each step once, and sum up what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from dqar.config import DQARConfig
from dqar.core.reasons import Reason
from dqar.core.reuse_gate import Signals
from dqar.integration.adapter import Call
from dqar.integration.branch import Branch
from dqar.integration.output_forecast import OutputForecaster
from dqar.integration.planner import Planner
from dqar.integration.recognition import Place, Recogniser
from dqar.integration.summary import Summary, summarize
from dqar.integration.sync import FirstLook, to_host
from dqar.integration.trajectory import Trajectory
from dqar.plan import BOTH, CONDITIONAL, NONE, FloatArray, allowed
from dqar.policy.mlp_policy import ReusePolicy
from dqar.utils.warn import warn

MAX_BRANCHES = 8  # calls a step; more are no guidance branches, but a loop that never steps the scheduler


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
        self.planner = Planner(config, layers, heads, mlps, policy, model)
        self.recogniser = Recogniser(scheduler, pipe)
        self.config, self.slots = self.planner.config, self.planner.slots
        self.model_layers, self.layers = layers, self.planner.layers
        self.conditional = conditional
        self.graphed, self.observed = False, True
        self.others: list[DQARManager] = []  # of the pipeline's other transformers, which share its steps
        self._warned: set[str] = set()
        self.reset()

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
        signals = None if self.planner.static else self._signals(run, branch, call.latent)
        branch.begin(run.step, signals, call.latent)
        self.active = branch
        return True

    def runs(self) -> bool:
        """Whether the current call runs the model, for one branch or for both.

        Returns:
            False where its whole output is forecast.
        """
        run, branch = self.trajectory, self.active
        if run is None or branch is None or branch.decision.branches == BOTH:
            return True
        if run.pair and branch is run.pair[1]:
            main = run.pair[0].outputs
            return main is None or not main.added.entries
        if branch.decision.branches == NONE:
            return branch.outputs is None or not branch.outputs.main.entries
        return True

    def inputs(self, values: dict[str, Any], batch: int) -> dict[str, Any]:
        """The transformer's inputs at this call, of the conditional half if it runs alone.

        Args:
            values: All arguments by name.
            batch: Samples of the call, both guidance halves counted.

        Returns:
            The arguments by name to call the transformer with; `values` itself where the batch runs whole.
        """
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
        ran, self.active = output is not None, None
        output = self._completed(run, branch, output, ran)
        branch.end(self.graphed, self.observed)
        if run.last:
            self.recogniser.forget()
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
        self.recogniser.detach()

    def summary(self) -> Summary:
        """Describe the last generation.

        Returns:
            What it reused, as it happened, of all its branches.

        Raises:
            RuntimeError: When none has run.
        """
        run = self.trajectory
        if run is None or not run.branches:
            raise RuntimeError("nothing to sum up: no generation has run since dqar.enable")
        self._read(run)
        guided = run.guided or run.pair is not None
        planned = allowed(self.config, run.snr, self.model_layers, guided, self.planner.saved)
        records = [branch.record for branch in run.branches.values()]
        return summarize(records, run.snr, self.model_layers, float(planned.mean()))

    # The generation and its branches

    def _follow(self, call: Call) -> Trajectory | None:
        """The generation at the step that a call belongs to; None where it belongs to none."""
        run = self.trajectory
        place, look, doubled = self.recogniser.place(run, call)
        if place is Place.BEGIN and look is not None:
            return self._start(look, doubled)
        if place is Place.OUTSIDE or run is None:
            return None
        return self._next(run) if place is Place.NEXT else run

    def _start(self, look: FirstLook, doubled: bool | None) -> Trajectory:
        self.reset()
        scheduler = self.recogniser.scheduler()
        # Latents may be equal by chance, as from one seed: a pipeline knows whether it doubled them.
        guided = look.equal_halves and doubled is not False
        if guided and self.conditional is None:
            self.planner.refuse_halves()
            guided = False
        counter = self.recogniser.counter(scheduler)
        run = Trajectory.start(scheduler, look, counter, guided, self.conditional)
        self.trajectory = run
        shared = [o for o in self.others if o.trajectory and o.trajectory.timesteps is run.timesteps]
        for other in shared:
            other._release()
        self.sensitivity = shared[0].sensitivity if shared else self.planner.sensitivity(run, self._warn)
        return run

    def _next(self, run: Trajectory) -> Trajectory:
        """The next step of the generation. After the first it is known whether guidance takes two calls."""
        run.step += 1
        run.calls = {}
        if run.step == run.begin + 1 and not run.guided and self.planner.may_run_one_branch:
            if run.pair is None:
                self._warn("guidance_interval", "has no effect: this generation does not run two branches")
            for branch in run.pair or ():
                self.planner.guide(run, branch)
        return run

    def _branch(self, run: Trajectory, call: Call, context: str | None) -> Branch | None:
        """The branch that a call belongs to: that of its context, else of its number at this step."""
        number = run.calls.get(context, 0)
        key = (context, number)
        run.calls[context] = number + 1
        inputs, branch = _inputs(call), run.branches.get(key)
        if branch is not None and branch.inputs == inputs and branch.step == run.step - 1:
            return branch
        if branch is None and len(run.branches) >= MAX_BRANCHES:
            self._warn(
                "scheduler", f"is not stepped: after {MAX_BRANCHES} calls at one step nothing is reused"
            )
            return None
        if not run.branches:
            run.inputs = inputs
        # A call on another batch, as skip-layer guidance makes, has no two halves.
        guided, record = run.guided and inputs == run.inputs, branch.record if branch else None
        started = self.planner.branch(run, guided, call.prompt_length, inputs, record, self._warn)
        run.branches[key] = started
        if branch is None:
            self._pair(run, started, key)
        elif run.pair and branch in run.pair:
            # Another shape, or a gap: what is cached is not of the step before, nor fits the other branch.
            for one in run.pair:
                one.step = -1
            run.pair = None
        return started

    def _pair(self, run: Trajectory, branch: Branch, key: tuple[str | None, int]) -> None:
        """Recognise the two calls of guidance at the first step, where one of them may be left out."""
        first = next(iter(run.branches))
        two = len(run.branches) == 2 and not run.guided and run.step == run.begin
        if not self.planner.may_run_one_branch or not two or run.main.inputs != branch.inputs:
            return
        if _is_unconditional(first[0]):
            self._warn("guidance_interval", "has no effect: the unconditional branch is called first")
            return
        if key[0] is None:
            self._warn("guidance_interval", "takes the first of two calls a step for the conditional branch")
        run.pair = (run.main, branch)

    # Outputs

    def _completed(self, run: Trajectory, branch: Branch, output: Any, ran: bool) -> Any:
        second = run.pair is not None and branch is run.pair[1]
        outputs = run.pair[0].outputs if run.pair and second else branch.outputs
        if outputs is None:
            return output
        step, branches = branch.position(self.sensitivity), branch.decision.branches
        if second:
            return outputs.unconditional(output, step, ran)
        if not ran:
            return outputs.forecast(step)
        if self.config.corrects:
            branch.measurements.deviation = outputs.deviation(output, step.position, branches)
        return outputs.completed(output, step, branches or BOTH)

    # Data

    def _signals(self, run: Trajectory, branch: Branch, latents: Any) -> Signals:
        """What is known when a step is decided; what the step before measured is read at its first call."""
        if run.read_at != run.step:
            latent = latents if isinstance(latents, torch.Tensor) else latents[0]
            run.read_at = run.step
            wants_norm = (
                self.planner.policy is not None and (branch.maker.blocked[run.step] == Reason.REUSED).any()
            )
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
        *values, [value] = to_host(*groups, [norm])
        expected = self.planner.saved.expected if self.planner.saved else np.ones(len(run))
        for number, branch in enumerate(branches):
            entropy, change, [deviation] = values[3 * number : 3 * number + 3]
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


def _is_unconditional(name: str | None) -> bool:
    return name is not None and ("uncond" in name or "neg" in name) and "cond_uncond" not in name


def _inputs(call: Call) -> Any:
    """Shape, dtype and device of the latents: another one cannot use what was cached."""
    latent = call.latent
    if isinstance(latent, torch.Tensor):
        return latent.shape, latent.dtype, latent.device
    return tuple([(t.shape, t.dtype, t.device) for t in latent])
