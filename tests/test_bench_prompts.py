"""Suites on prompts: which models take them, what is refused; images paired by prompt and noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

from bench.cli.main import app
from bench.errors import BadInput
from bench.measure import flops
from bench.pipeline import conditions, models
from bench.pipeline.session import Generation, Session
from bench.record import Record
from bench.report.tables.runs import text_columns
from bench.run.preflight import check_model, check_suite
from bench.run.runner import skip_reason
from bench.spec.prompts import MOST, Prompts, shipped
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings
from bench.spec.suite import Suite, available

pytestmark = pytest.mark.filterwarnings("ignore")

PROMPTS = {"file": "p.txt", "texts": ["red heart", "full moon", "grinning face"], "negatives": [""] * 3}


def spec(**fields: Any) -> RunSpec:
    """A short run of the text-to-image model."""
    common: dict[str, Any] = {
        "suite": "s", "name": "n", "method": "baseline", "model": "embedded-t2i", "num_inference_steps": 4,
        "batch_size": 2, "prompts": PROMPTS, "quality": QualitySettings(n=0, converged_n=0),
    }  # fmt: skip
    return RunSpec(**common | fields)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(spec())


@pytest.fixture(scope="module")
def base(session: Session) -> Generation:
    """What the session makes before any method."""
    return session.baseline(range(2))


def test_images_go_through_the_prompts_whatever_their_batch(session: Session) -> None:
    """Image i has prompt i modulo their number and its own noise, whatever batch it is made in."""
    whole = session.baseline(range(0, 4)).latents
    assert torch.allclose(session.baseline(range(2, 4)).latents, whole[2:], atol=1e-4)
    assert [session.label(i) for i in range(4)] == [0, 1, 2, 0]
    assert not torch.allclose(whole[0], whole[3], atol=0.1)  # the same prompt, other noise


IDENTITIES = {
    "nothing-reusable": ("dqar", {"preset": "maximum", "layer_fraction": 0.0}),
    "all-steps-run": ("dqar", {"preset": "maximum", "layer_fraction": 0.0, "model_steps": 4}),
    "the-same-steps": ("fewer_steps", {"steps": 4}),
    "never-similar": ("dbcache", {"threshold": 0.0, "warmup_steps": 4}),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_what_reuses_nothing_changes_no_bit(session: Session, base: Generation, name: str) -> None:
    """A method that may reuse nothing gives the baseline's latents and images, bit for bit."""
    method, options = IDENTITIES[name]
    generation = session.under(spec(method=method, options=options)).candidate(range(2))
    assert torch.equal(generation.latents, base.latents)
    assert torch.equal(generation.images, base.images)


COMPETITORS = {
    "dqar": {"preset": "maximum"},
    "fora": {},
    "taylorseer": {"computed_first": 1},
    "pab": {"from_timestep": 1000, "to_timestep": 0},
    "fastercache": {},
    "magcache": {"steps": 4, "threshold": 1.0, "retention_ratio": 0.0},
    "teacache": {"threshold": 1.0},
    "budcache": {"computed": [0, 2]},
    "l2p": {"budget": 2, "computed_first": 1},
    "dbcache": {"threshold": 1.0, "warmup_steps": 1},
    "fewer_steps": {"scheduler": "dpm_solver++"},
}


@pytest.mark.parametrize("method", COMPETITORS)
def test_a_method_changes_images_and_leaves_no_trace(session: Session, base: Generation, method: str) -> None:
    """Each competitor acts on the joint blocks, and afterwards the pipeline's images are as before."""
    latents = session.under(spec(method=method, options=COMPETITORS[method])).candidate(range(2)).latents
    drift = (latents - base.latents).norm() / base.latents.norm()
    assert 1e-4 < drift < 1.5
    assert torch.equal(session.baseline(range(2)).latents, base.latents)


def test_flops_are_those_of_the_joint_layers(session: Session) -> None:
    """Attention and MLPs are found in an MMDiT, and half the images cost half."""
    cost = flops.count(session)
    assert 0.2 < cost.attention / cost.forward < 0.5
    assert 0.3 < cost.mlp / cost.forward < 0.7
    half = flops.count(session.under(spec(batch_size=1)))
    assert cost.forward == pytest.approx(2 * half.forward, rel=1e-6)
    assert flops.candidate(session) == cost.generation(4)


def test_a_file_holds_prompts_and_negative_ones(tmp_path: Path) -> None:
    """One a line, empty lines and comments dropped; what stands behind a tab is the negative prompt."""
    file = tmp_path / "prompts.txt"
    file.write_text("# comment\nred heart\tblue\n\nfull moon\n", encoding="utf-8")
    read = spec(prompts=str(file))
    call = conditions.arguments(read, object(), [1, 0])
    assert call == {"prompt": ["full moon", "red heart"], "negative_prompt": ["", "blue"]}
    assert conditions.names(read, object()) == {0: "red heart", 1: "full moon"}
    assert RunSpec.model_validate_json(read.model_dump_json()) == read  # as a worker reads it


def test_a_record_names_prompts_without_a_path(tmp_path: Path) -> None:
    """A record holds the file's name and a digest of the prompts, which comments do not change."""
    one, other = tmp_path / "a.txt", tmp_path / "deep" / "a.txt"
    other.parent.mkdir()
    one.write_text("red heart\n")
    other.write_text("# the same\nred heart\n")
    first, second = (spec(prompts=str(path)).public() for path in (one, other))
    assert first == second
    assert str(tmp_path) not in json.dumps(first)
    other.write_text("red heart\tblue\n")
    assert spec(prompts=str(other)).public()["prompts"] != first["prompts"]


def test_what_has_no_prompts_is_recorded_as_before() -> None:
    """The configuration of a suite on class labels has no field of prompts, so that its key stays."""
    assert not {"prompts", "call"} & spec(model="embedded", prompts=None).public().keys()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        (b"", "holds no prompt"),
        (b"# nothing\n\n", "holds no prompt"),
        (b"\tblue\n", "line 1: the prompt before the tab is missing"),
        (b"a\tb\tc\n", "line 1: 3 columns"),
        (b"a\x00b\n", "line 1: a control character"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"x" * 2001, "line 1: longer than 2000"),
        (b"x\n" * (MOST + 1), "10,001 prompts"),
        (b"x" * (2**20 + 1), "larger than"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None, why: str) -> None:
    """A missing, empty, malformed or too long file is refused by what is wrong with it."""
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValidationError, match=why) as caught:
        spec(prompts=str(file))
    assert str(tmp_path) not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": None}, "prompts: null is not allowed"),
        ({"model": "embedded"}, "'embedded' takes class labels"),
        ({"labels": [1]}, "labels: not allowed"),
        ({"scheduler": "ddim"}, "scheduler: 'ddim'"),
        ({"timestep_spacing": "trailing"}, "timestep_spacing: 'trailing'"),
        ({"method": "fewer_steps", "options": {"scheduler": "ddim"}}, "scheduler: 'ddim'"),
        ({"call": {"true_cfg_scale": 2.0}}, "true_cfg_scale: 2.0 .* StableDiffusion3Pipeline takes none"),
        ({"call": {"num_frames": 5}}, "num_frames: 5"),
        ({"method": "dqar", "options": {"plan": "dpm200-converged-5x"}}, "options: plan"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    """Prompts, guidance, solver and plan must fit the model; one line names the field."""
    with pytest.raises(BadInput, match=message) as caught:
        check_model([spec(**changes)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in available() if Suite.load(name).file.on_flows])
def test_a_suite_for_noise_schedules_names_those_for_flows(name: str) -> None:
    """Given a flow, it is refused in one line with the suites to run instead, and these take the flow."""
    given = {"model": "embedded-t2i", "prompts": "emoji"}
    suite = Suite.load(name, **given)
    with pytest.raises(BadInput, match="'embedded-t2i' is not allowed: it is a flow") as caught:
        check_suite(suite, suite.configurations[0])
    assert "\n" not in str(caught.value)
    for other in suite.file.on_flows:
        assert other in str(caught.value)
        check_model(Suite.load(other, **given).specs())
    check_suite(Suite.load(name, model="embedded"), suite.configurations[0].model_copy(update=OF_LABELS))


OF_LABELS = {"model": "embedded", "prompts": None}


def test_a_shipped_plan_for_other_layers_is_a_skipped_run() -> None:
    """A suite with plans of the models that ship runs on a model of another depth without them; a plan for
    other steps is still a mistake."""
    plan = {"plan": "t2i-dpm-converged-2.8x", "scheduler": "dpm_solver++", "steps": 28}
    own, other = (spec(method="dqar", options=plan, **model) for model in ({}, OF_LABELS))
    check_model([own, other])
    assert skip_reason(own) is None
    assert skip_reason(other) == "its plan was calibrated for 7 layers, this model has 12"
    with pytest.raises(BadInput, match="the plan is for 28 steps"):
        check_model([other.model_copy(update={"options": plan | {"steps": 20}})])


def test_a_pipeline_that_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    """One without a transformer, and one that needs more than a prompt, before weights are looked for."""
    index = tmp_path / "model_index.json"
    unet = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    image = {"_class_name": "FluxKontextPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    for content, why in ((unet, "has no transformer"), (image, "is not supported")):
        index.write_text(json.dumps(content))
        with pytest.raises(BadInput, match=why):
            models.check(tmp_path)


def test_calibrated_dbcache_needs_back_blocks_here(session: Session) -> None:
    """The gap that is named is one: without back blocks cache-dit's forecast fails, with one it runs."""
    options = {"threshold": 10.0, "warmup_steps": 1, "taylorseer_order": 1}
    gap = spec(method="dbcache", options=options)
    assert "back_blocks" in (skip_reason(gap) or "")
    with pytest.raises(AssertionError, match="Bn_residual"):
        session.under(gap).candidate(range(2))
    runs = spec(method="dbcache", options=options | {"back_blocks": 1})
    assert skip_reason(runs) is None
    session.under(runs).candidate(range(2))


def test_a_suite_on_prompts_end_to_end(tmp_path: Path, warm_processes: None, undrawn: None) -> None:
    """`bench run` measures a model on prompts: a record with text scores, the paired change and digests, a
    report that shows them, and a method that does not run there named with its reason."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red heart\nfull moon\ngrinning face\nflag japan\n")
    suite = tmp_path / "few.yaml"
    suite.write_text(
        """
title: a test
model: embedded
num_inference_steps: 4
batch_size: 2
timing: {min_pairs: 2, max_pairs: 2, warmup: 0, together: 4}
quality: {n: 4, converged_n: 2, converged_steps: 8}
memory: false
runs:
  - {name: baseline, method: baseline}
  - {name: two, method: fewer_steps, options: {steps: 2}}
  - {name: first, method: first_block}
"""
    )
    out = ["--results", str(tmp_path / "results"), "--reports", str(tmp_path / "reports")]
    given = ["--model", "embedded-t2i", "--prompts", str(prompts)]
    done = CliRunner().invoke(app, ["run", str(suite), *out, *given])
    assert done.exit_code == 0, done.output
    found = [Record.model_validate_json(p.read_text()) for p in (tmp_path / "results").rglob("*.json")]
    records = {record.name: record for record in found}
    base, two = records["baseline"].quality, records["two"].quality
    assert base and two and base.identical and base.text_score_change and two.text_score_change
    assert base.text_score_change.mean == 0 == base.drift.mean
    assert two.text_score_change.mean == pytest.approx(
        sum(two.text_score_per_image) / 4 - sum(base.text_score_per_image) / 4
    )
    assert two.drift_converged and two.to_reference and "held-out names" in two.to_reference.reference
    assert two.worst[0].label in prompts.read_text()
    assert records["two"].environment["inputs"]["prompts"] == Prompts.read(str(prompts)).digest
    assert records["first"].status == "skipped"
    (page,) = (tmp_path / "reports").rglob("few/README.md")
    text = page.read_text()
    assert "text score" in text and "CLIP score" not in text
    assert "first_block does not run on this model" in text
    by_clip = two.model_copy(update={"text_scorer": "CLIP (given)"})
    record = records["two"].model_copy(update={"quality": by_clip})
    assert [column.title for column in text_columns([record])][:1] == ["CLIP score ↑"]
    assert text_columns([record, records["two"]])[0].title == "text score ↑"
    (table,) = (tmp_path / "reports").rglob("configurations.csv")
    assert "text_score_change_low" in table.read_text().splitlines()[0]


def test_the_shipped_suite_has_distinct_prompts_and_a_control() -> None:
    """`embedded-t2i` makes one image of each prompt and starts with the baseline itself."""
    suite = Suite.load("embedded-t2i")
    prompts = suite.file.prompts
    assert prompts and len(set(prompts.texts)) == len(prompts.texts) == suite.file.quality.n
    assert suite.names[0] == "baseline"
    assert "emoji" in shipped()
