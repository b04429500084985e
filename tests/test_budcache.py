"""BudCache: the budget, the search and the held residual are the paper's, on a real transformer."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import generate
from torch import Tensor
from typer.testing import CliRunner

from bench import methods
from bench.cli.main import app
from bench.errors import BadInput
from bench.methods.budcache import Mask, fixed, moved, neighbours, search
from bench.pipeline.session import Session
from bench.run.runner import skip_reason
from bench.spec.run_spec import RunSpec
from bench.spec.suite import Suite
from bench.studies.masks import parsed

STEPS = 10


def held(velocities: Tensor, mask: Mask) -> Tensor:
    """Where Euler's method ends if velocities are held at the steps that do not run."""
    at = torch.zeros(len(velocities))
    for i, step in enumerate(mask):
        until = (*mask, len(velocities))[i + 1]
        at[step:until] = velocities[step]
    return at.sum()


def toy(velocities: Tensor) -> Callable[[Mask], float]:
    """The squared error of a mask's final latent."""
    return lambda mask: float((held(velocities, mask) - velocities.sum()) ** 2)


def test_where_holding_is_exact_the_search_finds_no_error() -> None:
    """Of velocities that change at few steps, the search runs at those; steps at equal distances err."""
    changes = (0, 1, 9, 10, 22)
    velocities = torch.tensor([2.0 ** sum(step >= change for change in changes) for step in range(28)])
    error = toy(velocities)
    found = search(28, 5, error)
    assert error(found) == 0 and len(found) == 5
    assert error(search(28, 5, error, iterations=0, climbs=0)) > 1


@pytest.mark.parametrize("budget", [2, 4, 6])
def test_the_best_mask_of_all_is_found(budget: int) -> None:
    """On few steps no mask of the budget with the fixed steps in it has less error."""
    velocities = 0.2 * torch.randn(9, generator=torch.Generator().manual_seed(budget))
    error, first = toy(velocities), fixed(budget)
    every = itertools.combinations(range(first, 9), budget - first)
    masks = [(*range(first), *rest) for rest in every]
    assert error(search(9, budget, error)) == pytest.approx(min(map(error, masks)), abs=1e-6)


@pytest.mark.parametrize(("budget", "first"), [(1, 1), (3, 1), (4, 1), (8, 2), (14, 3)])
def test_every_mask_that_is_tried_keeps_budget_and_first_steps(budget: int, first: int) -> None:
    """Whatever annealing and climbing try has exactly the budget, each step once, a quarter of it first; and
    each is generated once."""
    seen: list[Mask] = []

    def error(mask: Mask) -> float:
        seen.append(mask)
        return float(sum(mask) % 7)

    found = search(28, budget, error, iterations=60, climbs=2)
    assert seen and max(Counter(seen).values()) == 1
    for mask in seen:
        assert len(set(mask)) == budget and mask == tuple(sorted(mask)) and mask[-1] < 28
        assert mask[:first] == tuple(range(first)) and fixed(budget) == first
    assert found == search(28, budget, error, iterations=60, climbs=2)  # alike in every process


def test_moves_are_near_and_far_of_one_step_or_two() -> None:
    """Annealing moves one step nine times in ten, mostly by up to three; climbing looks at all of these."""
    rng, mask = random.Random(0), (0, 1, 2, 9, 14, 20, 27, 33, 38, 40, 45, 49)
    out = [({*mask} - {*other}, {*other} - {*mask}) for other in (moved(mask, 50, rng) for _ in range(500))]
    single = [(*gone, *new) for gone, new in out if len(new) == 1]
    assert 0.85 < len(single) / len(out) < 0.95
    assert 0.65 < sum(abs(a - b) <= 3 for a, b in single) / len(single) < 0.85
    near = [
        tuple(sorted({*mask} - {one} | {step}))
        for one in mask[3:]
        for step in range(max(3, one - 3), min(50, one + 4))
        if step not in mask
    ]
    assert {*near} < {*neighbours(mask, 50, rng)}


def test_more_budget_than_steps_runs_all() -> None:
    """There is then nothing to search."""
    assert search(5, 9, lambda mask: pytest.fail("searched")) == (0, 1, 2, 3, 4)
    assert moved((0, 1, 2), 3, random.Random(0)) == (0, 1, 2)


def run(pipe: Any, name: str = "budcache", **options: Any) -> Tensor:
    """A generation under a method."""
    with methods.get(name).apply(pipe, options):
        return generate(pipe, steps=STEPS)


def test_with_every_step_it_is_the_baseline(pipe: Any) -> None:
    """A generation to search by, and one whose mask has all steps, change no bit."""
    before = generate(pipe, steps=STEPS)
    assert torch.equal(run(pipe), before)
    assert torch.equal(run(pipe, computed=list(range(STEPS))), before)
    assert torch.equal(generate(pipe, steps=STEPS), before)


def test_the_last_residual_is_held(pipe: Any) -> None:
    """A step that does not run adds to the first block's input what all blocks added at the last that did."""
    made = run(pipe, computed=[0, 1, 4, 8])
    blocks, residual, step = pipe.transformer.transformer_blocks, torch.empty(0), -1
    first, runs = blocks[0].forward, [block.forward for block in blocks]

    def whole(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal residual, step
        step += 1
        if step in (0, 1, 4, 8):
            after = first(hidden_states, *args, **kwargs)
            for each in runs[1:]:
                after = each(after, *args, **kwargs)
            residual = after - hidden_states
            return after
        return hidden_states + residual

    blocks[0].forward = whole
    for block in blocks[1:]:
        block.forward = lambda hidden_states, *args, **kwargs: hidden_states  # whole has run it
    assert torch.equal(made, generate(pipe, steps=STEPS))


def session(model: Path, **options: Any) -> Session:
    """A session of the tiny model under BudCache."""
    spec = RunSpec(
        suite="s", name="n", method="budcache", options=options, model=str(model), batch_size=2,
        num_inference_steps=STEPS,
    )  # fmt: skip
    return Session.open(spec)


def test_the_search_is_on_final_latents_and_keeps_its_budget(tiny_model_dir: Path) -> None:
    """What it finds runs as often as the budget, and ends nearer to the uncached latents than equal
    distances."""
    one = session(tiny_model_dir, budget=3, iterations=10, climbs=0)
    mask, whole = one.resolved["mask"], one.baseline(range(2)).latents
    assert len(mask) == 3 and mask[0] == 0
    calls: list[Any] = []
    hook = one.pipe.transformer.transformer_blocks[1].ff.register_forward_hook(lambda *_: calls.append(1))
    found = one.candidate(range(2)).latents
    hook.remove()
    assert len(calls) == 3 and one.cache_bytes > 0
    even = one.under(one.spec.model_copy(update={"options": {"computed": [0, 4, 7]}}))
    assert even.resolved == {}
    assert (found - whole).square().mean() < (even.candidate(range(2)).latents - whole).square().mean()
    assert torch.equal(one.baseline(range(2)).latents, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget: 0 is not allowed; allowed: a whole number from 1 to 1000"),
        ({"computed": [0, 0]}, "computed: [0, 0] is not allowed; allowed: a list that ascends from step 0"),
        ({"computed": [0], "iterations": 5}, "computed: excludes iterations; allowed: one of them"),
        ({"mask": [0]}, "unknown option 'mask'; allowed: budget, iterations, climbs"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """Each is refused in one line with the option, its value and what is allowed."""
    with pytest.raises(BadInput) as caught:
        methods.check("budcache", options, "suite")
    assert message in str(caught.value)


def test_a_mask_of_more_steps_is_refused(pipe: Any) -> None:
    """Steps that the generation has not are an error, not another mask."""
    with pytest.raises(ValueError, match="computed = 20 is not allowed; allowed: steps below 10"):
        run(pipe, computed=[0, 20])


def test_where_it_was_not_tried_is_named() -> None:
    """Pipelines that call their transformer twice a step are a gap with its reason; both that ship run."""
    assert "tried" in (methods.get("budcache").gap("WanPipeline", {}) or "")
    for model in ("embedded", "embedded-t2i"):
        spec = RunSpec(
            suite="s", name="n", method="budcache", model=model, batch_size=1, num_inference_steps=4
        )
        assert skip_reason(spec) is None


def test_the_command_writes_runs_that_a_suite_takes(tiny_model_dir: Path, tmp_path: Path) -> None:
    """`masks` searches each solver and budget, and what it writes is a suite's list of runs."""
    out = tmp_path / "runs.yaml"
    line = f"masks --out {out} --model {tiny_model_dir} --steps {STEPS} --budgets 2 --iterations 2"
    given = [*line.split(), "--solvers", "dpm_solver++:4", "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    suite = {"title": "t", "model": str(tiny_model_dir), "num_inference_steps": STEPS}
    (tmp_path / "masks.yaml").write_text(yaml.safe_dump(suite | yaml.safe_load(out.read_text())))
    specs = Suite.load(tmp_path / "masks.yaml").specs()
    assert [spec.name for spec in specs] == ["dpm4-budcache-2"]
    assert len(specs[0].options["computed"]) == 2
    assert parsed("own,unipc:25") == [{}, {"scheduler": "unipc", "steps": 25}]
    with pytest.raises(BadInput, match=r"masks: --solvers: 'euler' is not allowed; allowed: own, ddim"):
        parsed("own,euler")
