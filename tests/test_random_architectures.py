"""The suites of published text pipelines, on their architectures made tiny: every method's path on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bench.cli.main import app
from bench.errors import BadInput
from bench.measure import flops
from bench.pipeline import models
from bench.pipeline.architectures import ARCHITECTURES, Architecture, Part
from bench.pipeline.session import Session
from bench.run.estimate import FLOPS, estimate
from bench.run.preflight import check_model
from bench.run.runner import gap
from bench.run.suite_run import SuiteRun
from bench.spec.run_spec import RunSpec
from bench.spec.suite import Suite

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 5
PUBLISHED = dict(ARCHITECTURES)
_KL = {"block_out_channels": (8,) * 4, "layers_per_block": 0, "norm_num_groups": 4}
# Of each suite: what is smaller than published in its transformer and in its decoder.
TINY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sd3": (
        {
            "sample_size": 8, "num_layers": 3, "attention_head_dim": 8, "num_attention_heads": 2,
            "joint_attention_dim": 16, "caption_projection_dim": 16, "pooled_projection_dim": 8,
            "pos_embed_max_size": 16,
        },
        _KL,
    ),
    "flux": (
        {
            "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
            "joint_attention_dim": 16, "pooled_projection_dim": 8, "axes_dims_rope": (4, 6, 6),
        },
        _KL,
    ),
    "pixart": (
        {
            "sample_size": 32, "num_layers": 3, "attention_head_dim": 8, "num_attention_heads": 2,
            "cross_attention_dim": 16, "caption_channels": 16,
        },
        _KL,
    ),
    "wan": (
        {
            "num_layers": 3, "attention_head_dim": 12, "num_attention_heads": 2, "ffn_dim": 32,
            "text_dim": 16, "freq_dim": 16,
        },
        {"base_dim": 8, "num_res_blocks": 0},
    ),
}  # fmt: skip
LATENTS = {"sd3": (2, 16, 8, 8), "flux": (2, 16, 8, 8), "pixart": (2, 4, 32, 32), "wan": (2, 16, 2, 8, 8)}
# Options that make a method reuse within so few steps of random weights.
EAGER: dict[str, dict[str, Any]] = {
    "taylorseer": {"computed_first": 1},
    "pab": {"from_timestep": 1000, "to_timestep": 0},
    "first_block": {"threshold": 10.0},
    "magcache": {"threshold": 10.0, "retention_ratio": 0.0, "steps": STEPS},
    "dbcache": {"threshold": 10.0, "warmup_steps": 1},
    "fewer_steps": {"steps": 3},
    "hicache": {"computed_first": 1, "interval": 2},
    "speca": {"threshold": 10.0},
    "fastercache": {"from_timestep": 1000},
    "teacache": {"threshold": 10.0},
    "seacache": {"threshold": 9.0},
    "meancache": {"budget": 3},
    "l2p": {"budget": 3, "computed_first": 2},
    "budcache": {"budget": 3},
}
# What does not run on each suite's pipeline.
GAPS = {
    "sd3": {"first_block"},
    "flux": {"heun-7", "fastercache", "teacache", "seacache", "budcache"},
    "pixart": {"teacache", "seacache", "meancache", "budcache"},
    "wan": {"heun-8", "speca", "fastercache", "teacache", "seacache", "meancache", "l2p", "budcache"},
}


def smaller(part: Part, changes: Mapping[str, Any]) -> Part:
    """The component with other options."""
    return replace(part, options={**part.options, **changes})


def tiny(full: Architecture, transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> Architecture:
    """The same pipeline with few small layers and short embeddings."""
    shapes = {"prompt_embeds": (6, 16), "pooled_prompt_embeds": (8,), "prompt_attention_mask": (6,)}
    return replace(
        full,
        transformer=smaller(full.transformer, transformer),
        vae=smaller(full.vae, vae),
        embeddings={name: shapes[name.removeprefix("negative_")] for name in full.embeddings},
    )


@pytest.fixture(scope="module", params=TINY)
def small(request: pytest.FixtureRequest) -> Any:
    """A suite's name, its configurations at few steps and 64 pixels, and a session of the tiny model."""
    name: str = request.param
    frames = {"num_frames": 5} if name == "wan" else {}
    suite = Suite.load(
        name,
        call={"height": 64, "width": 64, **frames},
        num_inference_steps=STEPS,
        dtype="fp32",
        batch_size=2,
    )
    model = suite.file.model
    full = ARCHITECTURES[model]
    ARCHITECTURES[model] = tiny(full, *TINY[name])
    specs = [spec.model_copy(update={"weights": "random"}) for spec in suite.specs()]
    yield name, specs, Session.open(specs[0])
    ARCHITECTURES[model] = full


def eager(spec: RunSpec) -> RunSpec:
    """The configuration with options by which it acts within few steps."""
    options = spec.options | EAGER.get(spec.method, {})
    if options.get("scheduler") == "heun":
        options["steps"] = 2
    return spec.model_copy(
        update={"options": options | ({"model_steps": 3} if "model_steps" in options else {})}
    )


@pytest.mark.everyday("sd3")
def test_every_method_of_a_suite_acts_and_leaves_no_trace(small: Any) -> None:
    """Each configuration computes less and drifts; afterwards the baseline is bit-exact."""
    name, specs, session = small
    base = session.baseline(range(2))
    assert tuple(base.latents.shape) == LATENTS[name]
    assert base.images.shape[:3] == (2, 3, 64)
    whole = flops.count(session).generation(STEPS)
    assert {spec.name for spec in specs if gap(spec)} == GAPS[name]
    for spec in specs:
        if gap(spec):
            continue
        other = session.under(eager(spec))
        drift = (other.candidate(range(2)).latents - base.latents).norm() / base.latents.norm()
        cost = flops.candidate(other)
        if spec.method == "baseline":
            assert (drift, cost) == (0, whole)
        else:
            assert drift > 0 and cost < whole, spec.name
        assert torch.equal(session.baseline(range(2)).latents, base.latents), spec.name


def test_nothing_reusable_changes_no_bit(small: Any) -> None:
    """DQAR that may reuse nothing gives the baseline's latents and images, of a video too."""
    _, specs, session = small
    off = {"method": "dqar", "options": {"preset": "maximum", "layer_fraction": 0.0}}
    base, candidate = (
        session.baseline(range(2)),
        session.under(specs[0].model_copy(update=off)).candidate(range(2)),
    )
    assert torch.equal(candidate.latents, base.latents) and torch.equal(candidate.images, base.images)


def test_embeddings_are_the_prompts_own(small: Any) -> None:
    """A prompt has the same random embedding in every batch, and another than the next prompt."""
    _, _, session = small
    both, second = session.arguments(range(2)), session.arguments(range(1, 2))
    embedded = both["prompt_embeds"]
    assert torch.equal(embedded[1:], second["prompt_embeds"])
    assert not torch.equal(embedded[0], embedded[1])


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("stabilityai/stable-diffusion-3-medium-diffusers", 2.03),
        ("black-forest-labs/FLUX.1-dev", 11.9),
        ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", 0.61),
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 1.42),
    ],
)
def test_the_architectures_have_the_published_size(model: str, billions: float) -> None:
    """Built without memory, each transformer has as many parameters as the published one."""
    with torch.device("meta"):
        built = PUBLISHED[model].transformer.build()
    assert sum(p.numel() for p in built.parameters()) / 1e9 == pytest.approx(billions, abs=0.006 * billions)


@pytest.mark.parametrize("name", TINY)
def test_a_suite_has_every_competitor_or_names_its_gap(name: str) -> None:
    """Each method of `front-t2i` is a configuration of the suite; `bench show` names those that do not run on
    its pipeline with the reason, without weights."""
    kinds = {spec.method for spec in Suite.load("front-t2i").configurations}
    assert kinds <= {spec.method for spec in Suite.load(name).configurations}
    lines = CliRunner().invoke(app, ["show", name]).output.splitlines()
    skipped = [line.split(": ") for line in lines if line.startswith("skipped: ")]
    assert {parts[1] for parts in skipped} == GAPS[name]
    assert all(parts[2].endswith("does not run on this model") and parts[3] for parts in skipped)


@pytest.mark.parametrize("name", TINY)
def test_a_suite_for_a_gpu_is_shown_and_refused_here(name: str, tmp_path: Path) -> None:
    """`bench show` estimates it for a GPU; without one `bench run` is refused before anything is fetched."""
    suite = Suite.load(name)
    assert suite.file.model in FLOPS
    assert estimate(suite.specs()).device == "an A100 to H200"
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    done = CliRunner().invoke(app, ["run", name, "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert f"{name} needs a CUDA device" in done.output and len(done.output.strip().splitlines()) == 1


def test_a_suite_for_a_gpu_runs_a_small_model_here(tmp_path: Path) -> None:
    """With another model the suite is what that model is measured by: `sd3` on the embedded one."""
    suite = Suite.load("sd3", model="embedded-t2i", prompts="emoji", dtype="fp32")
    assert [spec.weights for spec in SuiteRun.of_suite(suite, tmp_path, only="spread-14").specs] == [
        "trained"
    ]


def test_random_weights_need_a_known_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model on prompts whose weights cannot be had, and whose architecture is not known, is refused."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    suite = Suite.load("sd3", model="nobody/nothing")
    with pytest.raises(BadInput, match="nobody/nothing"):
        models.with_weights(suite.file)


def test_a_random_flow_keeps_its_solver() -> None:
    """What a flow cannot have is refused on random weights as on trained ones."""
    (spec, *_) = Suite.load("flux").specs()
    with pytest.raises(BadInput, match="timestep_spacing"):
        check_model([spec.model_copy(update={"weights": "random", "timestep_spacing": "trailing"})])
