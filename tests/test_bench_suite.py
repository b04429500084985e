"""Suites: what is expanded, and that each mistake is one line naming file, field and value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import BadInput
from bench.measure.timing import over
from bench.methods.dqar import config
from bench.spec.run_spec import RunSpec
from bench.spec.settings import FILES
from bench.spec.suite import Suite, available

GOOD: dict[str, Any] = {
    "title": "a test",
    "model": "embedded",
    "runs": [{"name": "baseline", "method": "baseline"}],
}


def specs(tmp_path: Path, **changes: Any) -> list[RunSpec]:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    return Suite.load(path).specs()


@pytest.mark.parametrize("name", list(available()))
def test_shipped_suites_are_valid(name: str) -> None:
    """Every suite that ships can be read, expanded and checked."""
    runs = Suite.load(name).specs()
    assert len({spec.name for spec in runs}) == len(runs)


SCHEDULING = {
    "schedule_type", "layer_fraction", "early_phase_end", "mid_phase_end", "custom_schedule",
    "adaptive_tolerance", "probe_interval",
}  # fmt: skip


@pytest.mark.parametrize("name", list(available()))
def test_no_suite_sets_what_is_switched_off(name: str) -> None:
    """A run that names a field of the layer schedule has that on, or it would measure another thing."""
    runs = [spec for spec in Suite.load(name).configurations if spec.method == "dqar"]
    inert = [
        s.name for s in runs if SCHEDULING & s.options.keys() and not config(s.options).use_layer_scheduling
    ]
    assert not inert


@pytest.mark.parametrize("name", ["baselines", "baselines-cuda"])
def test_baselines_are_measured_for_one_image_and_for_many(name: str) -> None:
    """Each kind of baseline there is has its control and a reuse over it, at batch 1 and at a larger one."""
    found = {(over(s), s.batch_size == 1, s.method) for s in Suite.load(name).configurations}
    kinds = ["eager", "compiled", "compiled with CUDA graphs"][: 3 if name.endswith("cuda") else 2]
    assert found == {(kind, one, m) for kind in kinds for one in (True, False) for m in ("baseline", "dqar")}


def test_a_grid_is_the_product_of_its_values(tmp_path: Path) -> None:
    """A grid makes one configuration a combination, named by it, over the entry's options."""
    grid = {"layer_fraction": [0.33, 0.5], "max_age": [1, 2]}
    run = {"name": "g", "method": "dqar", "options": {"preset": "maximum"}, "grid": grid}
    expanded = specs(tmp_path, runs=[run])
    assert [spec.name for spec in expanded] == [
        "g-layer_fraction=0.33-max_age=1",
        "g-layer_fraction=0.33-max_age=2",
        "g-layer_fraction=0.5-max_age=1",
        "g-layer_fraction=0.5-max_age=2",
    ]
    assert expanded[1].options == {"preset": "maximum", "layer_fraction": 0.33, "max_age": 2}


@pytest.mark.parametrize(("images", "kept"), [(0, 0), (4, 4), (24, 24), (100, 24), (None, 24)])
def test_fewer_images_are_fewer_converged_ones(images: int | None, kept: int) -> None:
    """`--images` below the suite's `converged_n` lowers that too, and above it leaves it as it is."""
    quality = Suite.load("embedded", quality={"n": images}).file.quality
    assert (quality.n, quality.converged_n) == (24 if images is None else images, kept)


def test_fewer_images_than_the_default_of_converged_ones(tmp_path: Path) -> None:
    """A suite that names no `converged_n` takes fewer images than its default too; one that is no number is
    refused."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert Suite.load(path, quality={"n": 2}).file.quality.converged_n == 2
    path.write_text(yaml.safe_dump(GOOD | {"quality": {"converged_n": "all"}}))
    with pytest.raises(BadInput, match=r"quality\.converged_n"):
        Suite.load(path, quality={"n": 2})


def test_a_run_may_have_settings_of_its_own(tmp_path: Path) -> None:
    """A run's settings stand in place of the suite's, part by part, and for that run alone."""
    changes = {"batch_size": 2, "compile": True, "timing": {"warmup": 3}}
    runs = [{"name": "a", "method": "baseline", "settings": changes}, {"name": "b", "method": "baseline"}]
    a, b = specs(tmp_path, batch_size=8, timing={"min_pairs": 4}, runs=runs)
    assert (a.batch_size, a.compile, a.timing.warmup, a.timing.min_pairs) == (2, True, 3, 4)
    assert (b.batch_size, b.compile, b.timing.warmup) == (8, False, 1)


def test_a_speedup_names_its_baseline(tmp_path: Path) -> None:
    """Eager, compiled and CUDA graphs are distinguished in words; graphs are refused without compiling."""
    (spec,) = specs(tmp_path)
    assert over(spec) == "eager"
    assert over(spec.model_copy(update={"compile": True})) == "compiled"
    graphs = {"compile": True, "cuda_graphs": True}
    assert over(spec.model_copy(update=graphs)) == "compiled with CUDA graphs"


def test_an_override_of_a_part_keeps_its_other_fields(tmp_path: Path) -> None:
    """What the command line sets of a part stands in place of those fields alone, null of none."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD | {"quality": {"n": 50, "reference": "a"}}))
    loaded = Suite.load(path, quality={"reference": "b", "lpips_weights": None}, seed=None).file
    assert (loaded.quality.n, loaded.quality.reference, loaded.seed) == (50, "b", 0)


def test_goals_are_no_part_of_what_is_measured(tmp_path: Path) -> None:
    """A goal that is stated, or changed, outdates no record."""
    assert specs(tmp_path, **goal(at_least=1)) == specs(tmp_path)


def run(method: str, **options: Any) -> dict[str, Any]:
    return {"runs": [{"name": "r", "method": method, "options": options}]}


def settings(**changes: Any) -> dict[str, Any]:
    return {"runs": [{"name": "r", "method": "baseline", "settings": changes}]}


def goal(**changes: Any) -> dict[str, Any]:
    wanted = {"description": "faster", "run": "baseline", "metric": "timing.speedup"}
    return {"goals": [wanted | changes]}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stepz": 3}, ["stepz", "allowed", "num_inference_steps"]),
        ({"timing": {"pears": 3}}, ["timing.pears", "allowed", "min_pairs"]),
        ({"batch_size": 0}, ["batch_size", "0", "greater than or equal to 1"]),
        ({"dtype": "fp8"}, ["dtype", "'fp8'", "'fp32', 'bf16' or 'fp16'"]),
        ({"quality": {"n": 4, "converged_n": 8}}, ["quality", "converged_n 8 is above n 4"]),
        ({"quality": {"converged_factor": 10}}, ["quality.converged_factor", "allowed", "converged_steps"]),
        (
            {"quality": {"converged_solver": "euler"}},
            ["quality.converged_solver", "'dpm_solver++', 'unipc' or 'own'"],
        ),
        (
            {"num_inference_steps": 30, "quality": {"converged_steps": 20}},
            ["quality.converged_steps 20 is below num_inference_steps 30"],
        ),
        ({"runs": []}, ["runs", "at least 1"]),
        ({"runs": [{"name": "a/b", "method": "baseline"}]}, ["runs.0.name", "'a/b'", "pattern"]),
        ({"runs": GOOD["runs"] * 2}, ["name", "'baseline'", "twice"]),
        (run("bettercache"), ["r", "method", "'bettercache'", "allowed", "fewer_steps"]),
        (run("baseline", x=1), ["r", "'x'", "allowed: none"]),
        (run("dqar", layer_fracton=1), ["r", "'layer_fracton'", "layer_fraction"]),
        (run("dqar", layer_fraction=2), ["r", "layer_fraction", "2", "0 to 1"]),
        (run("dqar", preset="best"), ["r", "preset", "'best'", "conservative"]),
        (run("fewer_steps", steps=0), ["r", "steps", "0", "1 to 1000"]),
        (run("fewer_steps", scheduler="euler"), ["r", "'euler'", "dpm_solver++"]),
        (run("fewer_steps"), ["r", "steps", "scheduler"]),
        (run("dqar", entropy_quantile=2), ["r", "entropy_quantile", "2", "0 to 1"]),
        (run("dqar", entropy_quantile=0.5, entropy_threshold=1), ["r", "exclude each other"]),
        ({"cuda_graphs": True}, ["cuda_graphs needs compile: true"]),
        (settings(batch_size=0), ["r", "settings: batch_size", "0", "equal to 1"]),
        (settings(batchsize=1), ["r", "settings: batchsize", "allowed", "batch_size"]),
        (settings(timing={"pears": 1}), ["r", "settings: timing.pears", "allowed", "min_pairs"]),
        (goal(at_least=1, run="r"), ["goals.0.run", "'r'", "allowed: baseline"]),
        (goal(at_least=1, over="r"), ["goals.0.over", "'r'", "allowed: baseline"]),
        (goal(at_least=1, metric="timing.speed"), ["goals.0.metric", "no field 'speed'", "speedup"]),
        (goal(at_least=1, of="timing.verdict"), ["goals.0.of", "'timing.verdict' holds no number"]),
        (goal(at_least=1, at_most=2), ["goals.0", "one of at_least and at_most"]),
        (goal(above=1), ["goals.0.above", "allowed", "at_least"]),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], named: list[str]) -> None:
    """A mistake is one line with the file, the field, the value and what is allowed."""
    with pytest.raises(BadInput) as caught:
        specs(tmp_path, **changes)
    line = str(caught.value)
    assert "\n" not in line
    assert all(part in line for part in ["mine.yaml", *named]), line


@pytest.mark.parametrize("text", ["runs: [", "- a list", "", "!!python/object:os.system {}"])
def test_files_that_are_no_suite(tmp_path: Path, text: str) -> None:
    """Broken YAML, another shape, and tags that would make objects are refused in one line."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"^mine\.yaml: [^\n]+$"):
        Suite.load(path)


def test_a_specification_survives_its_way_to_the_worker(tmp_path: Path) -> None:
    """Sent as JSON and read again, a specification has the same content, infinities too, which JSON
    lacks: hence the same key."""
    (spec,) = specs(tmp_path, **run("dqar", snr_high=float("inf"), adaptive_tolerance=float("inf")))
    again = RunSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert json.dumps(again.public()) == json.dumps(spec.public())


def test_a_record_never_shows_a_path(tmp_path: Path) -> None:
    """Directories and files stand in the record by their last part only; infinities are words."""
    (tmp_path / "tiny").mkdir()
    files = {field: str(tmp_path / field) for field in FILES}
    model = str(tmp_path / "tiny")
    (spec,) = specs(tmp_path, model=model, quality=files, **run("dqar", snr_high=float("inf")))
    shown = spec.public()
    assert {field: shown["quality"][field] for field in files} == {field: field for field in files}
    assert shown["model"] == "tiny"
    assert shown["options"] == {"snr_high": "inf"}
    assert str(tmp_path) not in str(shown)


def test_a_suite_is_read_and_expanded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, checked runs and settings of a loaded suite come from one reading of its file."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    suite = Suite.load(path, seed=3)
    path.unlink()
    assert suite.names == [spec.name for spec in suite.specs()] == ["baseline"]
    assert suite.specs()[0] is suite.configurations[0]
    assert (suite.file.seed, suite.without_overrides.file.seed) == (3, 0)


@pytest.mark.parametrize("name", ["a suite.yaml", "süite.yaml"])
def test_a_suite_file_needs_a_name_that_a_directory_may_have(tmp_path: Path, name: str) -> None:
    """A file's name that no record could carry is refused in one line."""
    path = tmp_path / name
    path.write_text(yaml.safe_dump(GOOD))
    with pytest.raises(BadInput, match="the name is not allowed"):
        Suite.load(path)
