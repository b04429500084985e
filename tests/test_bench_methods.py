"""Methods: each leaves the pipeline bit for bit as it was, and does what it states meanwhile."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import build_tiny_pipeline, generate

from bench import methods
from bench.errors import BadInput
from bench.measure import flops
from bench.methods import scheduler
from bench.methods.base import Arm
from bench.methods.hicache import coefficient
from bench.methods.teacache import Accumulator
from bench.pipeline.session import Session
from bench.spec.run_spec import RunSpec

# Each competitor, at settings under which it must reuse in ten steps.
CACHES: list[tuple[str, dict[str, Any]]] = [
    ("fora", {"interval": 3}),
    ("taylorseer", {"interval": 3, "order": 1}),
    ("taylorseer", {"interval": 3, "order": 2}),
    ("hicache", {"interval": 3, "order": 2}),
    ("speca", {"threshold": 0.5, "decay": 1.0, "longest": 3, "order": 1}),
    ("l2p", {"budget": 5}),
    ("budcache", {"budget": 5, "iterations": 2, "climbs": 0}),
    ("pab", {"interval": 2, "from_timestep": 1000, "to_timestep": 0}),
    ("first_block", {"threshold": 0.5}),
    ("magcache", {"threshold": 0.5, "steps": 10}),
    ("fastercache", {"from_timestep": 900}),
    ("teacache", {"threshold": 0.5}),
    ("dbcache", {"threshold": 0.9}),
    ("dbcache", {"threshold": 0.9, "taylorseer_order": 1, "front_blocks": 2, "back_blocks": 1}),
    ("dbcache", {"threshold": 0.0, "steps": 10, "mask": "fast", "mask_policy": "static"}),
    ("dbcache", {"threshold": 0.9, "calibrator": "foca"}),
]

CASES: list[tuple[str, dict[str, Any]]] = [
    ("baseline", {}),
    ("dqar", {"preset": "maximum"}),
    ("dqar", {"preset": "recommended", "max_age": 2, "quantization_bits": 16}),
    ("fewer_steps", {"steps": 4}),
    ("fewer_steps", {"scheduler": "dpm_solver++", "steps": 4}),
    ("fewer_steps", {"scheduler": "unipc"}),
    ("fewer_steps", {"scheduler": "deis", "steps": 4, "spacing": "karras", "solver_order": 3}),
    ("dqar", {"preset": "maximum", "scheduler": "dpm_solver++"}),
    *((name, options | {"scheduler": "dpm_solver++"}) for name, options in CACHES[:1]),
    *CACHES,
]


@pytest.fixture(scope="module")
def before() -> torch.Tensor:
    """What the pipeline of each test generates while no method has been on it."""
    return generate(build_tiny_pipeline())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_pipeline_is_restored(
    pipe: Any, before: torch.Tensor, name: str, options: dict[str, Any]
) -> None:
    """Used and left, a method leaves no trace in the next generation or in the pipeline's parts."""
    scheduler = pipe.scheduler
    parts = [type(module) for module in pipe.transformer.modules()]
    with methods.get(name).apply(pipe, options):
        generate(pipe)
    assert torch.equal(generate(pipe), before)
    assert pipe.scheduler is scheduler
    assert [type(module) for module in pipe.transformer.modules()] == parts


@pytest.mark.everyday("dqar-*", "first_block-*", "dbcache-*")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_pipeline_is_restored_after_an_error(
    pipe: Any, before: torch.Tensor, name: str, options: dict[str, Any]
) -> None:
    """An error within a method does not keep it from restoring the pipeline."""
    with pytest.raises(RuntimeError), methods.get(name).apply(pipe, options):
        raise RuntimeError
    assert torch.equal(generate(pipe), before)


def test_dqar_reports_what_it_reused(pipe: Any) -> None:
    """The record's map, ratio and cache bytes are those of the generation just made."""
    options = {"preset": "maximum", "max_age": 2}
    with methods.get("dqar").apply(pipe, options) as arm:
        generate(pipe, steps=10)
        reuse, held = arm.reuse(), arm.cache_bytes()
    assert reuse is not None
    table = torch.tensor(reuse.map)
    assert table.shape == (10, 6)
    assert reuse.ratio == pytest.approx(table.float().mean().item())
    assert reuse.ratio > 0
    assert held > 0
    assert sum(reuse.reasons.values()) == 60


def test_fewer_steps_keeps_the_noise_schedule(pipe: Any) -> None:
    """Another solver is built on the model's own betas, prediction type and timestep spacing."""
    with methods.get("fewer_steps").apply(pipe, {"scheduler": "dpm_solver++", "steps": 4}) as arm:
        assert arm.call == {"num_inference_steps": 4}
        swapped = pipe.scheduler.config
    for name in ("beta_start", "beta_end", "beta_schedule", "prediction_type", "timestep_spacing"):
        assert swapped[name] == pipe.scheduler.config[name]


@pytest.mark.parametrize("contraction", [0.5, 1.0])
def test_hicache_weighs_differences_by_scaled_hermite_polynomials(contraction: float) -> None:
    """As published: s^k H_k(s x) / k!, where numpy has the physicist's polynomials; order 0 holds."""
    for order in range(5):
        for steps in (1, 2, 3):
            one = np.polynomial.hermite.hermval(contraction * steps, [0] * order + [1])
            expected = contraction**order * one / math.factorial(order)
            assert coefficient(order, steps, contraction) == pytest.approx(expected)


def test_hicache_is_taylorseer_but_for_its_weights(pipe: Any) -> None:
    """Of order 1 it weighs the difference by 2 s^2 x, which at s^2 = 1/2 is Taylor's x: the same images; and
    other ones at another contraction."""
    generations = []
    for name, more in (
        ("taylorseer", {}),
        ("hicache", {"contraction": math.sqrt(0.5)}),
        ("hicache", {"contraction": 0.9}),
    ):
        with methods.get(name).apply(pipe, {"interval": 3, "order": 1, "computed_first": 2} | more):
            generations.append(generate(pipe, steps=10))
    assert torch.allclose(generations[0], generations[1], atol=1e-4)
    assert not torch.allclose(generations[0], generations[2], atol=1e-3)


def test_teacache_holds_while_the_expected_change_adds_up_to_less() -> None:
    """As published: the polynomial of each step's change is summed up, and from zero again after a run."""
    accumulator = Accumulator(threshold=1.0, coefficients=[2.0, 0.0, 0.1])  # 2 x^2 + 0.1
    held = [accumulator.holds(distance) for distance in (0.5, 0.1, 0.3, 0.5, 0.5)]
    assert held == [True, True, False, True, False]


def test_teacache_fits_how_the_output_changes_with_the_input(pipe: Any) -> None:
    """What it measures are relative changes between neighbouring steps, of which the polynomial is a fit."""
    with methods.get("teacache").apply(pipe, {}) as arm:
        generate(pipe, steps=10)
        coefficients = arm.calibrated()["coefficients"]
    assert len(coefficients) == 5
    with methods.get("teacache").apply(pipe, {"threshold": 0.0, "coefficients": coefficients}):
        computed = generate(pipe)
    assert torch.equal(computed, generate(pipe))


@pytest.mark.parametrize("name", scheduler.SIGMAS)
def test_every_spacing_and_order_of_a_solver_is_live(pipe: Any, name: str) -> None:
    """Each spacing puts the steps elsewhere, and each order makes another latent from the same steps."""
    method, steps, generations = methods.get("fewer_steps"), [], []
    for spacing in ("leading", "trailing", *scheduler.SIGMAS[name]):
        with method.apply(pipe, {"scheduler": name, "steps": 5, "spacing": spacing}):
            pipe.scheduler.set_timesteps(5)
            steps.append(tuple(pipe.scheduler.sigmas.tolist()))
    for order in scheduler.ORDERS[name]:
        with method.apply(pipe, {"scheduler": name, "steps": 8, "solver_order": order}):
            generations.append(generate(pipe, steps=8))
    assert len(set(steps)) == len(steps)
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(generations))


def tiny_spec(model: Path, options: dict[str, Any]) -> RunSpec:
    given: dict[str, Any] = {"method": "dqar", "options": options, "model": str(model)}
    return RunSpec(suite="tiny", name="run", num_inference_steps=6, batch_size=2, **given)


def test_an_entropy_quantile_is_placed_on_the_model_at_hand(tiny_model_dir: Path) -> None:
    """The threshold is a quantile of the entropies measured, so that each point of a grid lets more
    through; the record holds the nats that it came to."""
    shares, nats = [], []
    for quantile in (0.0, 0.5, 1.0):
        options = {"preset": "maximum", "use_layer_scheduling": False, "entropy_quantile": quantile}
        session = Session.open(tiny_spec(tiny_model_dir, options))
        session.candidate(range(2))
        traced = session.traced()
        assert traced is not None
        shares.append(traced.ratio)
        nats.append(traced.resolved["entropy_threshold"])
    assert shares[0] < shares[1] < shares[2]
    assert nats[0] < nats[1] < nats[2]


def test_an_entropy_quantile_is_measured_where_nothing_is_reused(pipe: Any) -> None:
    """The generation that places the quantile computes every layer at every step: what reuse does to
    entropies would move the threshold that decides on reuse."""
    summaries = []

    @contextmanager
    def untimed(options: dict[str, Any]) -> Iterator[Arm]:
        with methods.get("dqar").apply(pipe, options) as arm:
            generate(pipe, steps=6)
            summaries.append(arm.reuse())
            yield arm

    resolved = methods.get("dqar").resolve({"entropy_quantile": 0.5, "max_age": 2}, untimed)
    (summary,) = summaries
    assert summary is not None
    entropy: Any = summary.entropy
    assert summary.ratio == 0 and not np.any(summary.map) and None not in np.ravel(entropy)
    assert resolved == {"entropy_threshold": pytest.approx(np.median(entropy))}


class Untouched(NamedTuple):
    """A session, and its baseline before any method."""

    session: Session
    latents: torch.Tensor
    flops: float


@pytest.fixture(scope="module")
def untouched(tiny_model_dir: Path) -> Untouched:
    session = Session.open(tiny_spec(tiny_model_dir, {}).model_copy(update={"num_inference_steps": 10}))
    return Untouched(session, session.baseline(range(2)).latents, flops.count(session).generation(10))


@pytest.mark.parametrize(("name", "options"), CACHES)
def test_every_competitor_really_reuses(untouched: Untouched, name: str, options: dict[str, Any]) -> None:
    """None is a silent no-op: each computes fewer FLOPs than the baseline and changes the latents, and
    does both alike in the next generation, for no state leaks from run to run."""
    methods.check(name, options, "test")
    given = untouched.session.spec.model_copy(update={"method": name, "options": options})
    session = untouched.session.under(given)
    generation = session.candidate(range(2))
    assert flops.candidate(session) < 0.95 * untouched.flops
    assert not torch.equal(generation.latents, untouched.latents)
    assert torch.equal(session.candidate(range(2)).latents, generation.latents)
    assert torch.equal(session.baseline(range(2)).latents, untouched.latents)


@pytest.mark.everyday("taylorseer-*", "dbcache-*")
@pytest.mark.parametrize(
    ("name", "option", "values"),
    [
        ("fora", "interval", (2, 4)),
        ("taylorseer", "interval", (2, 4)),
        ("taylorseer", "order", (0, 1)),
        ("taylorseer", "computed_first", (2, 5)),
        ("speca", "threshold", (0.0, 0.5)),
        ("speca", "decay", (0.0, 1.0)),
        ("speca", "order", (0, 1)),
        ("speca", "computed_first", (2, 4)),
        ("speca", "longest", (1, 3)),
        ("budcache", "budget", (4, 6)),
        ("budcache", "iterations", (0, 10)),
        ("budcache", "climbs", (0, 1)),
        ("l2p", "budget", (4, 6)),
        ("l2p", "computed_first", (1, 3)),
        ("l2p", "epochs", (0, 200)),
        ("pab", "interval", (2, 4)),
        ("pab", "from_timestep", (500, 900)),
        ("pab", "to_timestep", (0, 600)),
        ("first_block", "threshold", (0.0, 0.5)),
        ("magcache", "threshold", (0.0, 0.5)),
        ("magcache", "max_skip_steps", (1, 4)),
        ("magcache", "retention_ratio", (0.1, 0.7)),
        ("teacache", "threshold", (0.0, 0.5)),
        ("fastercache", "attention_interval", (2, 4)),
        ("fastercache", "unconditional_interval", (2, 5)),
        ("fastercache", "from_timestep", (300, 900)),
        ("fastercache", "weight", (0.0, 1.0)),
        ("dbcache", "threshold", (0.0, 0.9)),
        ("dbcache", "front_blocks", (1, 3)),
        ("dbcache", "back_blocks", (0, 2)),
        ("dbcache", "warmup_steps", (4, 6)),
        ("dbcache", "taylorseer_order", (0, 1)),
        ("dbcache", "calibrator", ("none", "foca")),
        ("dbcache", "calibrator", ("dmd", "foca")),
    ],
)
def test_every_option_of_a_competitor_is_live(
    pipe: Any, name: str, option: str, values: tuple[Any, Any]
) -> None:
    """Another value of the option makes another latent."""
    rest = dict(CACHES)[name]
    generations = []
    for value in values:
        options = rest | {option: value}
        session = Session(pipe, tiny_spec(Path("tiny"), options).model_copy(update={"method": name}), [1, 2])
        session.spec = session.spec.model_copy(update={"num_inference_steps": 10})
        generations.append(session.candidate(range(2)).latents)
    assert not torch.equal(generations[0], generations[1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("taylorseer", {"interval": 1}, "interval: 1 is not allowed; allowed: a whole number from 2 to 50"),
        ("dbcache", {"threshold": "x"}, "threshold: 'x' is not allowed; allowed: a number from 0 to 10"),
        ("pab", {"depth": 1}, "unknown option 'depth'; allowed: interval, from_timestep, to_timestep, steps"),
        ("fora", {"scheduler": "euler"}, "scheduler: 'euler' not known; allowed: ddim"),
        ("magcache", {}, "steps is not given"),
        (
            "fewer_steps",
            {"steps": 4, "spacing": "karras"},
            "spacing: 'karras' needs a scheduler; allowed: one",
        ),
        ("fewer_steps", {"scheduler": "unipc", "spacing": "lu"}, "'lu' is not allowed; allowed with unipc:"),
        ("dbcache", {"mask": "fast"}, "mask: 'fast' needs steps; allowed: 8 or more"),
        ("dbcache", {"calibrator": "x"}, "calibrator: 'x' is not allowed; allowed: none, dmd, foca"),
        ("dbcache", {"calibrator": "dmd", "taylorseer_order": 1}, "excludes taylorseer_order"),
        ("dbcache", {"mask_policy": "static"}, "mask_policy: 'static' needs a mask"),
        (
            "fewer_steps",
            {"scheduler": "deis", "solver_order": 4},
            "order: 4 is not allowed; allowed with deis: 1, 2, 3",
        ),
    ],
)
def test_bad_options_of_a_competitor(name: str, options: dict[str, Any], message: str) -> None:
    """Each is refused in one line with the option, its value and what is allowed."""
    with pytest.raises(BadInput) as caught:
        methods.check(name, options, "suite")
    assert message in str(caught.value)
