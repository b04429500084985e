"""MeanCache and SeaCache on the flow that ships: the published formulas, and a pipeline left as it was."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from diffusers.hooks.sea_cache import SeaCacheSharedState
from torch import Tensor

from bench import methods
from bench.errors import BadInput
from bench.methods.meancache import Edge, Trajectory, shortest
from bench.pipeline.session import Session
from bench.run.runner import skip_reason
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 8
PROMPTS = {"file": "p.txt", "texts": ["red heart", "full moon"], "negatives": [""] * 2}


def spec(**fields: Any) -> RunSpec:
    """A short run of the text-to-image model."""
    common: dict[str, Any] = {
        "suite": "s", "name": "n", "method": "baseline", "model": "embedded-t2i",
        "num_inference_steps": STEPS, "batch_size": 2, "prompts": PROMPTS,
        "quality": QualitySettings(n=0, converged_n=0),
    }  # fmt: skip
    return RunSpec(**common | fields)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(spec())


@pytest.fixture
def linear() -> tuple[Trajectory, Tensor]:
    """The exact trajectory of the velocity a + b t, which has the average velocity a + b (t + s) / 2."""
    a, b = torch.tensor([0.3, -1.0], dtype=torch.float64), torch.tensor([2.0, 0.7], dtype=torch.float64)
    trajectory = Trajectory([1.0, 0.9, 0.7, 0.4, 0.2, 0.0])
    trajectory.latents = [a * t + b * t * t / 2 for t in trajectory.times]
    trajectory.velocities = [a + b * t for t in trajectory.times[:-1]]
    return trajectory, torch.stack([a, b])


@pytest.mark.parametrize("span", [2, 3])
def test_the_average_velocity_is_that_of_the_paper(linear: tuple[Trajectory, Tensor], span: int) -> None:
    """Of a velocity that is linear in time the estimate is the true average at any span and target."""
    trajectory, (a, b) = linear
    for to in (4, 5):
        true = a + b * (trajectory.times[3] + trajectory.times[to]) / 2
        assert torch.allclose(trajectory.average(3, to, span), true)
        assert trajectory.cost(3, to, span) == pytest.approx(0.0, abs=1e-12)
    assert torch.equal(
        trajectory.average(3, 5, 1), trajectory.velocities[3]
    )  # a span of 1 holds the velocity


def euler(steps: int) -> Trajectory:
    """A trajectory of Euler's method under random velocities."""
    trajectory = Trajectory([1 - i / steps for i in range(steps + 1)])
    generator = torch.Generator().manual_seed(0)
    trajectory.latents = [torch.randn(6, generator=generator)]
    for t, s in itertools.pairwise(trajectory.times):
        trajectory.velocities.append(torch.randn(6, generator=generator))
        trajectory.latents.append(trajectory.latents[-1] + (s - t) * trajectory.velocities[-1])
    return trajectory


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("budget", [2, 3, 5])
def test_the_path_is_the_cheapest_of_all(budget: int, gamma: float) -> None:
    """Of all paths within the budget, and all spans of their edges, none has a smaller sum of costs."""
    full, steps = euler(6), 6

    def total(run: tuple[int, ...]) -> float:
        pairs = zip(run, (*run[1:], steps), strict=True)
        return float(sum(min(full.cost(i, j, k) ** gamma for k in range(1, max(1, i) + 1)) for i, j in pairs))

    runs = [(0, *more) for n in range(budget) for more in itertools.combinations(range(1, steps), n)]
    path = shortest(full, budget, gamma)
    cost = sum(
        full.cost(edge.step, to, edge.span) ** gamma
        for edge, to in zip(path, [*(e.step for e in path[1:]), steps], strict=True)
    )
    assert len(path) <= budget and path[0] == Edge(0, 1)
    assert cost == pytest.approx(min(map(total, runs)))


def calls(session: Session, given: RunSpec) -> tuple[Tensor, int]:
    """The latents of a method, and how often it runs the model's second block."""
    under, count = session.under(given), 0
    assert under.resolved is not None  # by a generation of its own, which does not count

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    hook = session.pipe.transformer.transformer_blocks[1].attn.register_forward_hook(counted)
    try:
        return under.candidate(range(2)).latents, count
    finally:
        hook.remove()


@pytest.mark.everyday("3")
@pytest.mark.parametrize("budget", [3, 5])
def test_meancache_runs_the_model_as_often_as_its_budget(session: Session, budget: int) -> None:
    """It runs the steps of its path and no others, alike each time, and leaves the pipeline as it was."""
    before, given = session.baseline(range(2)).latents, spec(method="meancache", options={"budget": budget})
    made, ran = calls(session, given)
    assert ran == budget
    assert not torch.equal(made, before)
    assert torch.equal(calls(session, given)[0], made)
    assert torch.equal(session.baseline(range(2)).latents, before)
    assert "step" not in vars(session.pipe.scheduler)


def test_meancache_with_every_step_is_the_baseline(session: Session) -> None:
    """A budget of all steps changes no bit; another exponent of the costs takes another path."""
    whole = session.under(spec(method="meancache", options={"budget": STEPS}))
    assert torch.equal(whole.candidate(range(2)).latents, session.baseline(range(2)).latents)
    paths = [
        session.under(spec(method="meancache", options={"budget": 4, "gamma": gamma})).resolved["edges"]
        for gamma in (1.0, 8.0)
    ]
    assert paths[0] != paths[1]


def test_a_path_of_other_steps_is_refused(session: Session) -> None:
    """A path that names steps which this generation lacks is an error, not another path."""
    given = spec(method="meancache", options={"edges": [[0, 1], [20, 1]]})
    with (
        pytest.raises(ValueError, match="allowed: steps below 8"),
        methods.get("meancache").apply(session.pipe, given.options),
    ):
        session.baseline(range(2))


@pytest.mark.everyday("0")
@pytest.mark.parametrize("order", [0, 1])
def test_seacache_skips_blocks(session: Session, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a threshold it computes less and another latent, with none nothing less; it never falls back."""

    def fell_back(state: Any, message: str) -> None:
        raise AssertionError(message)

    monkeypatch.setattr(SeaCacheSharedState, "mark_fail_open", fell_back)
    before = session.baseline(range(2)).latents
    options = {"threshold": 1.0, "residual_order": order}
    made, ran = calls(session, spec(method="seacache", options=options))
    assert ran < STEPS and not torch.equal(made, before)
    assert torch.equal(calls(session, spec(method="seacache", options=options))[0], made)
    same, all_of_them = calls(session, spec(method="seacache", options={"threshold": 0.0}))
    assert torch.equal(same, before) and all_of_them == STEPS
    assert torch.equal(session.baseline(range(2)).latents, before)


def test_more_is_held_where_more_may_follow_each_other(session: Session) -> None:
    """The bound on consecutive cached steps counts: three in a row compute less than one."""
    ran = [
        calls(session, spec(method="seacache", options={"threshold": 9.0, "max_consecutive_cached": n}))[1]
        for n in (1, 3)
    ]
    assert ran[1] < ran[0]


@pytest.mark.parametrize("name", ["seacache", "meancache"])
def test_where_they_do_not_run_is_named(name: str) -> None:
    """On a model of class labels, whose schedule is no flow, and on video each is a gap with its reason."""
    other = RunSpec(suite="s", name="n", method=name, model="embedded", batch_size=1, num_inference_steps=4)
    assert "flow" in (skip_reason(other) or "")
    assert methods.get(name).gap("WanPipeline", {})
    assert skip_reason(spec(method=name)) is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("meancache", {"scheduler": "unipc"}, "scheduler: 'unipc' is not allowed; allowed: the model's own"),
        ("meancache", {"budget": 1}, "budget: 1 is not allowed; allowed: a whole number from 2 to 1000"),
        ("seacache", {"residual_order": 2}, "residual_order: 2 is not allowed"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    """Each is refused in one line with the option, its value and what is allowed."""
    with pytest.raises(BadInput) as caught:
        methods.check(name, options, "suite")
    assert message in str(caught.value)
