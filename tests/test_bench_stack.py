"""The suite `stack`: what users have already, with and without reuse, and whether gains multiply."""

from __future__ import annotations

import copy
import gc
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import build_tiny_pipeline, generate
from report_records import made, written

from bench import methods
from bench.errors import BadInput
from bench.measure import flops
from bench.methods import stack
from bench.methods.base import Arm
from bench.methods.compilation import compiled
from bench.pipeline.session import Session
from bench.record import Record
from bench.report.tables.composition import composition_table
from bench.run.runner import skip_reason
from bench.run.worker import Job, records
from bench.spec.run_spec import RunSpec, groups
from bench.spec.suite import Suite

REUSE = {"preset": "maximum", "layer_fraction": 0.0, "model_steps": 4}
STACKS = [
    {"dtype": "bf16"},
    {"attention": "math"},
    {"weights": "int8"},
    {"dtype": "bf16", "weights": "int8"},
    {"compile": "regional"},
    {"compile": "max-autotune"},
]


def spec(model: Path, options: dict[str, Any], method: str = "stack") -> RunSpec:
    given: dict[str, Any] = {"options": options, "model": str(model)}
    return RunSpec(suite="tiny", name="run", method=method, num_inference_steps=8, batch_size=2, **given)


@pytest.fixture(scope="module")
def session(tiny_model_dir: Path) -> Session:
    return Session.open(spec(tiny_model_dir, {}, "baseline"))


@pytest.mark.everyday("options0")
@pytest.mark.parametrize("options", STACKS)
def test_each_part_acts_alone_and_with_reuse(session: Session, options: dict[str, Any]) -> None:
    """Alone a part changes the latents a little and saves no FLOPs; with reuse half of the steps are skipped,
    as they are by reuse alone; and the untouched pipeline is afterwards what it was, bit for bit."""
    before, whole = session.baseline(range(2)).latents, flops.count(session).generation(8)
    alone, both = (
        session.under(spec(Path(session.spec.model), options | more)) for more in ({}, {"dqar": REUSE})
    )
    drift = (alone.candidate(range(2)).latents - before).norm() / before.norm()
    assert 0 < drift < 0.05
    assert flops.candidate(alone) == pytest.approx(whole)
    made_once = both.candidate(range(2)).latents
    assert both.reuse is not None and both.reuse.skipped == 0.5
    assert torch.equal(both.candidate(range(2)).latents, made_once)
    assert flops.candidate(both) < 0.6 * whole
    assert torch.equal(session.baseline(range(2)).latents, before)


def test_a_precision_is_all_models_and_other_parts_the_transformers_alone(pipe: Any) -> None:
    """Under bf16 transformer and decoder are copies in bf16; the pipeline's own are never touched."""
    own = pipe.transformer, pipe.vae
    with methods.get("stack").apply(pipe, {"dtype": "bf16"}):
        assert {pipe.transformer.dtype, pipe.vae.dtype} == {torch.bfloat16}
    with methods.get("stack").apply(pipe, {"attention": "math"}):
        assert pipe.transformer is not own[0] and pipe.vae is own[1]
    assert (pipe.transformer, pipe.vae) == own and pipe.transformer.dtype == torch.float32


def test_compiled_models_are_made_once(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack alone and with reuse share one compiled copy, and each generation finds it again: another would
    compile again."""
    compiled: list[Any] = []

    def compiling(model: Any, fullgraph: bool, mode: str | None, dynamic: bool) -> Any:
        compiled.append((fullgraph, mode, dynamic))
        return copy.copy(model)

    monkeypatch.setattr(torch, "compile", compiling)
    for more in ({}, {"dqar": REUSE}, {}):
        with methods.get("stack").apply(pipe, {"compile": "whole"} | more):
            held = pipe.transformer
        assert held is not pipe.transformer
    assert compiled == [(True, None, False)]
    assert methods.get("stack").fixed_steps({"compile": "whole"})


def test_one_copy_is_held_at_a_time(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever options follow one another, the transformer of those before is gone as the next is copied."""
    kind, living, copying = type(pipe.transformer), [], copy.deepcopy
    others = sum(isinstance(one, kind) for one in gc.get_objects())

    def counted(model: Any, *memo: Any) -> Any:
        if model is pipe.transformer:
            living.append(sum(isinstance(one, kind) for one in gc.get_objects()) - others)
        return copying(model, *memo)

    monkeypatch.setattr(copy, "deepcopy", counted)
    parts = ({"dtype": "bf16"}, {"attention": "math"}, {"compile": "regional"}, {"compile": "whole"})
    for own in parts:
        for more in ({}, {"dqar": REUSE}):
            with methods.get("stack").apply(pipe, own | more), torch.compiler.set_stance("force_eager"):
                generate(pipe, steps=8)
    assert living == [0] * len(parts)


def test_stacks_of_other_models_are_not_interleaved() -> None:
    """One process measures a stack alone and with reuse, and no second one whose copy would take turns."""
    suite = {run.name: run for run in Suite.load("stack").specs()}
    chosen = [suite[name] for name in ("baseline", "bf16+dqar", "math", "math+dqar")]
    names = [[run.name for run in group] for group in groups(chosen)]
    assert names == [["baseline"], ["bf16+dqar"], ["math", "math+dqar"]]
    everything = [[run.name for run in group] for group in groups(list(suite.values()))]
    assert all(len(group) == 2 for group in everything)


def test_flops_are_those_of_the_eager_model_however_it_is_compiled(tiny_model_dir: Path) -> None:
    """Blocks that are compiled one by one count as they do uncompiled; the count itself compiles nothing."""
    session = Session.open(spec(tiny_model_dir, {}, "baseline"))
    before = flops.count(session)
    compiled(session.pipe.transformer, "regional")
    assert flops.count(session) == before


def test_torchao_warns_of_nothing_through_the_harness() -> None:
    """diffusers imports torchao where it is; of what they warn of alone, a user of `bench` sees nothing."""
    code = (
        "import bench; from diffusers import DiTPipeline; import sys; sys.exit('torchao' not in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_offload_moves_models_under_reuse(pipe: Any) -> None:
    """Under offload (here from the CPU to itself) models have hooks and make the untouched model's latents;
    reuse skips the same steps with the same latents; afterwards neither hooks nor the setting are left."""
    untouched, state = generate(pipe, steps=8), dict(vars(pipe))
    with methods.get("dqar").apply(pipe, REUSE):
        reused = generate(pipe, steps=8)
    with stack.offloaded(pipe, "cpu"):
        assert hasattr(pipe.transformer, "_hf_hook") and hasattr(pipe.vae, "_hf_hook")
        assert torch.equal(generate(pipe, steps=8), untouched)
        with methods.get("dqar").apply(pipe, REUSE) as arm:
            assert torch.equal(generate(pipe, steps=8), reused)
            found = arm.reuse()
        assert found is not None and found.skipped == 0.5
    assert not hasattr(pipe.transformer, "_hf_hook")
    assert vars(pipe) == state
    assert torch.equal(generate(pipe, steps=8), untouched)


def test_what_moves_are_copies(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under offload all models are copies, for those of the pipeline must stay where they are."""
    moved: list[Any] = []
    monkeypatch.setattr(stack, "lacks", lambda options: None)
    monkeypatch.setattr(
        pipe, "enable_model_cpu_offload", lambda device: moved.extend(pipe.components.values())
    )
    own = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    with methods.get("stack").apply(pipe, {"offload": True}):
        pass
    assert moved and not any(part is model for part in moved for model in own)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a device lacks")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "fp8"}, "weights: fp8 needs a CUDA device of compute capability 8.9 or above"),
        ({"attention": "cudnn"}, "attention: cudnn needs a CUDA device; a CPU has math and flash"),
        ({"offload": True}, "offload: true needs a CUDA device: a CPU computes where the weights are"),
    ],
)
def test_what_the_machine_lacks_is_skipped(
    pipe: Any, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite's run is skipped with one line that names the option, and used by hand it is an error."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # as if torchao were there
    given = RunSpec(suite="s", name="run", method="stack", options=options, model="embedded")
    assert skip_reason(given) == f"not on this machine: {message}"
    with pytest.raises(ValueError, match="needs a CUDA device"), methods.get("stack").apply(pipe, options):
        pass


def test_without_torchao_quantised_weights_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the package that is missing; what needs none runs."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert stack.lacks({"weights": "int8"}) == "weights: int8 needs the package torchao (pip install torchao)"
    assert stack.lacks({"dtype": "bf16", "compile": "whole", "attention": "math"}) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "int4"}, "weights: 'int4' is not allowed; allowed: int8, fp8"),
        ({"kernel": "x"}, "unknown option 'kernel'; allowed: dtype, weights, attention, compile, offload"),
        ({"dqar": REUSE}, "none of dtype, weights, attention, compile, offload is given"),
        ({"compile": True}, "compile: True is not allowed; allowed: whole, regional, max-autotune"),
        ({"compile": "regional", "offload": True}, "compile: regional and offload: true exclude each other"),
        ({"offload": "leaf"}, "offload: 'leaf' is not allowed; allowed: True, False"),
        ({"dtype": "bf16", "dqar": {"max_age": -1}}, "max_age"),
        ({"dtype": "bf16", "dqar": 3}, "dqar: 3 is not allowed"),
        ({"dtype": "bf16", "dqar": {"entropy_quantile": 0.5}}, "dqar: entropy_quantile is not allowed"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """Each is refused in one line with what is allowed."""
    with pytest.raises(BadInput) as caught:
        methods.check("stack", options, "suite")
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["whole", "regional"])
def test_a_compiled_baseline_is_refused(kind: str) -> None:
    """Over a compiled baseline the copy would not be compiled, so that it would lose by that alone."""
    pipe = build_tiny_pipeline()
    pipe.transformer = compiled(pipe.transformer, kind)
    with (
        pytest.raises(ValueError, match="must be false"),
        methods.get("stack").apply(pipe, {"dtype": "bf16"}),
    ):
        pass


def test_the_suite_has_every_part_alone_and_with_the_same_reuse() -> None:
    """Each option of the method occurs, each stack stands alone and with the one reuse."""
    found = Suite.load("stack").specs()
    (own,) = [run.options for run in found if run.method == "dqar"]
    stacks = [run.options for run in found if run.method == "stack"]
    alone = [options for options in stacks if "dqar" not in options]
    assert [options | {"dqar": own} for options in alone] == [o for o in stacks if "dqar" in o]
    assert {name for options in alone for name in options} == set(stack.KNOWN)


def record(name: str, method: str, speed: float, drift: float, options: dict[str, Any]) -> Record:
    found = made(name, method, speed, drift)
    return found.model_copy(update={"config": found.config | {"options": options}})


def three() -> list[Record]:
    """Reuse of 2 times, a stack of 1.5 times, and both together, which is 2.7 times."""
    return [
        record("reuse", "dqar", 2.0, 0.1, REUSE),
        record("bf16", "stack", 1.5, 0.02, {"dtype": "bf16"}),
        record("both", "stack", 2.7, 0.11, {"dtype": "bf16", "dqar": REUSE}),
        record("other", "stack", 2.7, 0.11, {"dtype": "bf16", "dqar": REUSE | {"model_steps": 5}}),
        record("lonely", "stack", 2.7, 0.11, {"attention": "math", "dqar": REUSE}),
    ]


def test_the_product_and_the_sum_stand_next_to_what_was_measured() -> None:
    """One row: a stack counts where it was measured alone, with a reuse that was measured alone too."""
    frame = composition_table(three()).frame
    assert list(frame["name"]) == ["bf16"]
    row = frame.iloc[0]
    assert row["speedup_product"] == pytest.approx(3.0)
    assert row["speedup_product_low"] == pytest.approx(3.0 * 0.988**2)
    assert row["percent_of_product"] == pytest.approx(90.0)
    assert (row["drift_sum"], row["drift"]) == (pytest.approx(0.12), pytest.approx(0.11))
    assert row["drift_sum_high"] == pytest.approx(0.12 * 1.09)


def test_without_images_only_speeds_are_composed() -> None:
    """Drifts that were not measured are no zeros."""
    bare = [found.model_copy(update={"quality": None}) for found in three()]
    row = composition_table(bare).frame.iloc[0]
    assert row["speedup_product"] == pytest.approx(3.0)
    assert row["drift_sum"] is None and row["drift"] is None


def test_a_report_of_stacks_has_the_table(tmp_path: Path, undrawn: None) -> None:
    """The page shows product and joint speedup with their intervals; other suites have no such section."""
    results = tmp_path / "results"
    results.mkdir()
    text = written(three(), results, tmp_path / "stack").read_text()
    (line,) = [
        row
        for row in text.split("## Composition")[1].split("\n## ")[0].splitlines()
        if row.startswith("| bf16 ")
    ]
    assert "3.000 [2.928, 3.072] | 2.700 [2.668, 2.732] | 90 [87, 93]" in line
    assert (tmp_path / "stack" / "composition.csv").exists()
    assert "## Composition" not in written(three()[:1], results, tmp_path / "dqar").read_text()


@pytest.mark.slow
def test_a_stack_is_measured_like_any_method(tiny_model_dir: Path, tmp_path: Path) -> None:
    """From runs to rows at toy size: timed, compared and composed by the harness's own worker."""
    shared: dict[str, Any] = {
        "suite": "stack", "model": str(tiny_model_dir), "memory": False,
        "num_inference_steps": 6, "batch_size": 2,
        "timing": {"min_pairs": 2, "max_pairs": 2, "warmup": 0, "together": 3},
        "quality": {"n": 4, "converged_n": 0, "extractor": None},
    }  # fmt: skip
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "reuse": ("dqar", REUSE), "bf16": ("stack", {"dtype": "bf16"}),
        "both": ("stack", {"dtype": "bf16", "dqar": REUSE}),
    }  # fmt: skip
    jobs = [
        Job(
            spec=RunSpec(name=name, method=method, options=options, **shared),
            key=name * 4, inputs={"machine": "m"}, results=tmp_path, parent=1,
        )
        for name, (method, options) in runs.items()
    ]  # fmt: skip
    found = [made_now for _, made_now, _ in records(jobs)]
    assert [(r.status, r.reason) for r in found] == [("ok", None)] * 3
    row = composition_table(found).frame.iloc[0]
    assert 0 < row["drift_stack"] < row["drift_reuse"]
    assert row["drift_sum"] == pytest.approx(row["drift_stack"] + row["drift_reuse"])
    assert row["speedup"] > 0


def test_an_arm_without_reuse_reports_none(pipe: Any) -> None:
    """A stack alone has no reuse map in its record."""
    with methods.get("stack").apply(pipe, {"attention": "math"}) as arm:
        assert isinstance(arm, Arm) and arm.reuse() is None
