"""The measure of families finds faults: planted ones on top of the real runtime, each caught by name."""

from __future__ import annotations

import inspect
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import dqar
from bench.cli import publish, studies
from bench.cli.main import app
from bench.errors import BadInput
from bench.store.places import REPORTS
from bench.studies.families import checks, emulation
from bench.studies.families.checks import CRASHED, REFUSED, RIGHT, WRONG, Examination, Outcome, refusal
from bench.studies.families.configurations import CONFIGURATIONS
from bench.studies.families.demands import DEMANDS
from bench.studies.families.pipeline_checks import PipelineExamination
from bench.studies.families.report import write_report
from bench.studies.families.study import PIPELINES, Examined

pytestmark = pytest.mark.filterwarnings("ignore")
Enable = Callable[[Any, Any], None]


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """A demand's outcome on a small DiT under a runtime with parts replaced."""

    def outcome(demand: str, name: str = "dit", **replaced: Any) -> Outcome:
        for part in ("enable", "disable", "summary"):
            given = replaced.get(part, getattr(dqar, part))
            before = vars(vars(checks)["dqar"])  # with the parts replaced so far
            monkeypatch.setattr(checks, "dqar", SimpleNamespace(**before | {part: given}))
        return Examination(CONFIGURATIONS[name]).outcome(demand)

    return outcome


def nothing(pipe: Any, config: Any = None) -> None:
    """A runtime that does nothing."""


def reports(**figures: Any) -> Callable[[Any], Any]:
    """A summary of that content."""
    return lambda pipe: SimpleNamespace(**{"steps": 3, "layers": 3, "ratio": 0.5} | figures)


def perturbing(change: Callable[[torch.Tensor, int], torch.Tensor]) -> Enable:
    """A runtime that changes what the first block's attention returns: the tensor, and the call's number."""

    def enable(pipe: Any, config: Any) -> None:
        attention = pipe.transformer.transformer_blocks[0].attn1
        compute, calls = type(attention).forward, [0]

        def forward(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            return change(compute(attention, *args, **kwargs), calls[0])

        attention.forward = forward

    return enable


def restoring(pipe: Any) -> None:
    """Undo `perturbing`."""
    del pipe.transformer.transformer_blocks[0].attn1.forward


def test_doing_nothing_is_no_reuse(examined: Callable[..., Outcome]) -> None:
    """Bit-identical outputs without any work spared are wrong, whatever the summary reports."""
    judged = examined("attention", enable=nothing, disable=nothing, summary=reports(ratio=0.5))
    assert judged == Outcome(WRONG, "nothing was reused; the summary reports 0.50")
    judged = examined("off", enable=nothing, disable=nothing, summary=reports(ratio=0.5))
    assert judged == Outcome(WRONG, "the summary reports a ratio of 0.50")
    assert examined("off", enable=nothing, disable=nothing, summary=reports(ratio=0.0)) == Outcome(RIGHT)


def test_one_bit_is_seen(examined: Callable[..., Outcome]) -> None:
    """The smallest change of one attention's output, at the last step alone, is wrong."""
    nudge = perturbing(lambda tensor, call: tensor.nextafter(tensor + 1) if call == 3 else tensor)
    judged = examined("off", enable=nudge, disable=restoring, summary=reports(ratio=0.0))
    assert judged.verdict == WRONG and judged.why.startswith("step 2, cond: the output is off by ")


def test_one_branch_answered_by_the_other_is_seen(examined: Callable[..., Outcome]) -> None:
    """An attention kept for one call and returned to the next, of another prompt, is wrong."""
    kept: list[torch.Tensor] = []

    def shared(tensor: torch.Tensor, call: int) -> torch.Tensor:
        kept.append(tensor)
        return kept[0]

    judged = examined("two calls", enable=perturbing(shared), disable=restoring, summary=reports())
    assert judged.verdict == WRONG and "step 0, uncond" in judged.why


def test_a_block_that_is_never_reused_is_named(examined: Callable[..., Outcome]) -> None:
    """Reuse that leaves out the model's last block is wrong and names which."""

    def enable(pipe: Any, config: Any) -> None:
        dqar.enable(pipe, config.replace(num_layers=2))

    assert examined("attention", enable=enable) == Outcome(WRONG, "blocks [2] of 3 were never reused")


def test_an_entry_that_is_used_too_long_is_seen(examined: Callable[..., Outcome]) -> None:
    """Where inputs change, a step that must compute and reuses instead is wrong, and so is the reverse."""

    def enable(**fields: Any) -> Enable:
        return lambda pipe, config: dqar.enable(pipe, config.replace(**fields))

    judged = examined("changing inputs", enable=enable(max_age=2))
    assert judged.verdict == WRONG and judged.why.startswith("step 2, cond: the output is off by ")
    judged = examined("changing inputs", enable=enable(warmup_steps=2))
    assert judged == Outcome(WRONG, "step 1, cond: reuse changes the output by 0.0e+00")


def test_what_disable_leaves_is_seen(examined: Callable[..., Outcome]) -> None:
    """An attribute, a hook, or a forward that stays on a module is wrong."""

    def attribute(pipe: Any) -> None:
        dqar.disable(pipe)
        pipe.transformer.proj_out_1.left = 1

    def hook(pipe: Any) -> None:
        dqar.disable(pipe)
        pipe.transformer.register_forward_hook(lambda *args: None)

    for disable in (attribute, hook, nothing):
        judged = examined("steps", disable=disable)
        assert judged.verdict == WRONG and "disable left something" in judged.why, disable


def test_what_disable_does_to_the_outputs_is_seen(examined: Callable[..., Outcome]) -> None:
    """A model that computes something else afterwards is wrong, though nothing on its modules shows it."""

    def corrupting(pipe: Any) -> None:
        dqar.disable(pipe)
        pipe.transformer.proj_out_2.weight.mul_(1.01)

    for demand in ("attention", "guidance, two calls"):
        judged = examined(demand, disable=corrupting)
        assert judged == Outcome(WRONG, "after disable the outputs are not the untouched model's"), demand


def test_miscounted_steps_are_seen(examined: Callable[..., Outcome]) -> None:
    """A summary of another number of steps than ran, or of layers than the blocks, is wrong."""
    judged = examined("attention", summary=reports(steps=6))
    assert judged == Outcome(WRONG, "the summary has 6 steps for 3")
    assert examined("attention", summary=reports(layers=4)) == Outcome(WRONG, "4 layers for 3")


def test_reuse_outside_of_the_schedule_is_seen(examined: Callable[..., Outcome]) -> None:
    """A call at a timestep that the schedule lacks, answered from what is kept, is wrong."""
    kept: dict[int, torch.Tensor] = {}

    def by_parity(tensor: torch.Tensor, call: int) -> torch.Tensor:
        return kept.setdefault(call % 2, tensor)

    judged = examined("attention", enable=perturbing(by_parity), disable=restoring, summary=reports())
    assert judged.verdict == WRONG and "outside of the schedule" in judged.why


def test_crashes_and_vague_refusals_are_no_refusals(examined: Callable[..., Outcome]) -> None:
    """Only a ValueError of one line that states what is allowed is a refusal."""

    def raising(error: Exception) -> Enable:
        def enable(pipe: Any, config: Any) -> None:
            raise error

        return enable

    allowed = "reuse_mode = 'kv' is not allowed; allowed: 'output'"
    assert examined("kv", enable=raising(ValueError(allowed))) == Outcome(REFUSED, allowed)
    assert examined("kv", enable=raising(KeyError("attn"))).verdict == CRASHED
    assert refusal("unsupported model").verdict == WRONG
    assert refusal("no; allowed:\nthat").verdict == WRONG


def test_a_pipeline_whose_branches_share_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents of another reuse than brute force's are wrong, by how much and of how much."""
    examination = PipelineExamination(PIPELINES["flux_true_cfg"])
    monkeypatch.setattr(emulation, "reusing", lambda tiny, names, forecast: emulation.plain(tiny)[0] + 1)
    judged = examination.outcome("attention")
    assert judged.verdict == WRONG and "the latents are off by" in judged.why


def test_a_blind_comparison_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where brute force gives the untouched latents, equality with it proves nothing and is wrong."""
    examination = PipelineExamination(PIPELINES["dit"])
    monkeypatch.setattr(emulation, "reusing", lambda tiny, names, forecast: emulation.plain(tiny)[0])
    assert "the comparison is blind" in examination.outcome("attention").why


def test_the_page_names_faults_and_refusals(tmp_path: Path) -> None:
    """Its totals count worst verdicts, and each fault and refusal stands in it with its reason."""
    good = dict.fromkeys(DEMANDS, Outcome(RIGHT))
    bad = good | {"steps as objects": Outcome(CRASHED, "why"), "kv": Outcome(REFUSED, "allowed: 'output'")}
    classes = [
        Examined(name=name, label="Model", kind="Model", outcomes=outcomes)
        for name, outcomes in (("one", good), ("other", bad))
    ]
    page = write_report(classes, [], tmp_path / "families").read_text()
    assert "| skipped steps | 1 | 0 | 0 | 1 | 0 |" in page
    assert "| K/V | 1 | 1 | 0 | 0 | 0 |" in page
    assert "- other: steps as objects: crashed: why" in page
    assert "- allowed: 'output'  \n  other\n" in page


def test_the_command_examines_what_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One configuration in a process of its own: a table, exit code 0 and no page; an unknown name is bad
    input."""
    forks = multiprocessing.get_context("fork")  # which have the imports of a new process already
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: forks)
    out = ["--reports", str(tmp_path)]
    done = CliRunner().invoke(app, ["families", "--only", "prior", *out])
    assert done.exit_code == 0 and "nothing is wrong and nothing crashed" in done.output
    assert "prior" in done.output and not list(tmp_path.iterdir())
    assert CliRunner().invoke(app, ["families", "--only", "nosuch", *out]).exit_code == 2


def test_the_report_is_local_until_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`families` writes where every other command does, and `publish` moves its page to what is committed."""
    assert inspect.signature(studies.families).parameters["reports"].default == REPORTS
    for name in ("REPORTS", "PUBLISHED_REPORTS", "RESULTS", "PUBLISHED_RESULTS"):
        monkeypatch.setattr(publish, name, tmp_path / name)
    page = write_report([], [], tmp_path / "REPORTS" / "families")
    content = page.read_text()
    (moved,) = publish.publish("families")
    assert moved == tmp_path / "PUBLISHED_REPORTS" / "families" / "README.md" and moved.read_text() == content
    with pytest.raises(BadInput, match="nosuch"):
        publish.publish("nosuch")
