"""What users do to a pipeline under DQAR: offloading, LoRA, fusion, copies, saving, interruptions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.callbacks import SD3CFGCutoffCallback
from diffusers.models.attention_dispatch import attention_backend
from peft import LoraConfig, get_peft_model
from torch import Tensor

import dqar
from bench.studies.families import emulation
from bench.studies.families.checks import left_behind, state_of
from bench.studies.families.demands import REUSE
from bench.studies.families.denoising import counted
from bench.studies.families.study import PIPELINES

pytestmark = pytest.mark.filterwarnings("ignore")
FAMILIES = ("pixart_sigma", "flux", "qwen_image")  # halves of a batch, joint attention, two calls a step
OFF = REUSE.replace(warmup_steps=1000)
LORA = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)


class Subject:
    """A tiny pipeline, its untouched latents, and what reuse by brute force makes of them."""

    def __init__(self, name: str) -> None:
        self.tiny = PIPELINES[name]
        self.pipe = self.tiny.build()
        self.plain = self.generate()[0]

    @property
    def reused(self) -> Tensor:
        """The latents of every second step's attention reused, without DQAR."""
        return emulation.reusing(self.tiny, (self.tiny.attention,))

    def generate(self, pipe: Any = None, **call: Any) -> tuple[Tensor, list[int]]:
        """The latents, and the work of each block."""
        pipe = pipe or self.pipe
        with counted(self.tiny.blocks(pipe.transformer)) as work:
            return self.tiny.generate(pipe, **call), work

    def judge(self, change: Callable[[Any], Any], before: bool) -> None:
        """`change` the pipeline before or after `enable`: off stays off, reuse reuses, nothing is left."""
        if before:
            change(self.pipe)
        plain, work = self.generate()
        state = state_of(self.pipe)
        dqar.enable(self.pipe, OFF)
        if not before:
            change(self.pipe)
            dqar.disable(self.pipe)
            plain, work = self.generate()
            state = state_of(self.pipe)
            dqar.enable(self.pipe, OFF)
        assert torch.equal(self.generate()[0], plain)
        dqar.enable(self.pipe, REUSE)
        reused = emulation.reusing(self.tiny, (self.tiny.attention,), change=change)
        for _ in range(2):  # what a first generation does to the hooks must not end the reuse
            latents, spared = self.generate()
            assert torch.equal(latents, reused) and not torch.equal(latents, plain)
            assert all(ours < theirs for ours, theirs in zip(spared, work, strict=True))
            assert dqar.summary(self.pipe).ratio == 0.5
        dqar.disable(self.pipe)
        if change is offloaded:  # which makes the model's hook and `forward` again after each generation
            state, left = names_of(state), names_of(state_of(self.pipe))
        else:
            left = state_of(self.pipe)
        assert left_behind(state, left) == ""
        again, full = self.generate()
        assert torch.equal(again, plain) and full == work


def names_of(state: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """A state without what identifies functions and counts hooks."""
    return {path: tuple(item for item in own if not isinstance(item, int)) for path, own in state.items()}


@pytest.fixture(params=FAMILIES)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


@pytest.fixture(autouse=True)
def own_backend() -> Iterator[None]:
    """diffusers keeps the last attention backend that any model was given for all models."""
    with attention_backend("native"):
        yield


def offloaded(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def offloaded_in_groups(pipe: Any) -> None:
    cpu = torch.device("cpu")
    pipe.transformer.enable_group_offload(cpu, cpu, offload_type="block_level", num_blocks_per_group=1)


def adapted(pipe: Any) -> None:
    torch.manual_seed(0)
    pipe.transformer.add_adapter(LORA)


def fused(pipe: Any) -> None:
    pipe.transformer.fuse_qkv_projections()


def on_another_backend(pipe: Any) -> None:
    pipe.transformer.set_attention_backend("_native_math")


def with_new_processors(pipe: Any) -> None:
    processor = next(iter(pipe.transformer.attn_processors.values()))
    pipe.transformer.set_attn_processor(type(processor)())


def cast_by_layers(pipe: Any) -> None:
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


CHANGES = (
    offloaded,
    offloaded_in_groups,
    adapted,
    fused,
    on_another_backend,
    with_new_processors,
    cast_by_layers,
)


WITHOUT_ADAPTERS = ("pixart_sigma",)  # whose class has no `add_adapter`


@pytest.mark.everyday("flux-*")
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("subject", "change"),
    [
        pytest.param(name, change, id=f"{name}-{change.__name__}")
        for name in FAMILIES
        for change in CHANGES
        if not (change is adapted and name in WITHOUT_ADAPTERS)
    ],
    indirect=["subject"],
)
def test_reuse_goes_on(subject: Subject, change: Callable[[Any], None], before: bool) -> None:
    """Before `enable` or after it: no bit changes while nothing is reusable, every block is spared work in
    each generation, the summary reports it, and `disable` leaves what the user did."""
    subject.judge(change, before)


def test_a_peft_model_takes_the_transformers_place(subject: Subject) -> None:
    """`get_peft_model` wraps the transformer in another class, under which reuse works as well."""

    def wrapped(pipe: Any) -> None:
        torch.manual_seed(0)
        pipe.transformer = get_peft_model(pipe.transformer, LORA)

    subject.judge(wrapped, before=True)


def test_offloading_that_ends_under_dqar(subject: Subject) -> None:
    """Hooks of offloading removed while DQAR is on: it reuses on, and `disable` leaves a whole pipeline."""
    offloaded(subject.pipe)
    dqar.enable(subject.pipe, REUSE)
    assert torch.equal(subject.generate()[0], subject.reused)
    subject.pipe.remove_all_hooks()
    assert torch.equal(subject.generate()[0], subject.reused)
    dqar.disable(subject.pipe)
    assert torch.equal(subject.generate()[0], subject.plain)


def test_a_copy_is_clean(subject: Subject) -> None:
    """A deep copy of an enabled transformer runs its own weights untouched; the original still reuses."""
    dqar.enable(subject.pipe, REUSE)
    twin = copy.deepcopy(subject.pipe.transformer)
    latents, _ = subject.generate()
    assert torch.equal(latents, subject.reused)
    other = subject.tiny.build()
    other.transformer = twin
    assert torch.equal(subject.generate(other)[0], subject.plain)
    for weight in twin.parameters():
        weight.zero_()
    assert not torch.equal(subject.generate(other)[0], subject.plain)
    assert torch.equal(subject.generate()[0], latents)


def test_saving_saves_nothing_but_the_model(subject: Subject, tmp_path: Path) -> None:
    """Saved or pickled while enabled, it comes back untouched, with the same parameters by the same names."""
    transformer = subject.pipe.transformer

    def come_back(name: str) -> list[Any]:
        transformer.save_pretrained(tmp_path / name)
        loaded = type(transformer).from_pretrained(tmp_path / name)
        return [
            subject.generate(_with(subject, m))[0] for m in (loaded, pickle.loads(pickle.dumps(transformer)))
        ]

    names = list(transformer.state_dict())
    # Weights in a file that is mapped lie at other addresses, by which some CPUs add in another order: what
    # comes back is compared with what comes back of the untouched model.
    untouched = come_back("untouched")
    dqar.enable(subject.pipe, REUSE)
    subject.generate()
    assert list(transformer.state_dict()) == names
    for one, other in zip(come_back("enabled"), untouched, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, subject.plain, rtol=1e-4, atol=1e-4)


def _with(subject: Subject, transformer: Any) -> Any:
    pipe = subject.tiny.build()
    pipe.transformer = transformer
    return pipe


def test_another_pipeline_with_the_same_transformer_is_untouched() -> None:
    """Only the enabled pipeline's generations reuse, before, between and after those of another one."""
    subject = Subject("dit")
    other = subject.tiny.build()
    other.transformer = subject.pipe.transformer
    other.scheduler = DPMSolverMultistepScheduler.from_config(other.scheduler.config)
    plain = subject.generate(other)[0]
    dqar.enable(subject.pipe, REUSE)
    assert torch.equal(subject.generate(other)[0], plain)
    assert torch.equal(subject.generate()[0], subject.reused)
    assert torch.equal(subject.generate(other)[0], plain)
    assert torch.equal(subject.generate()[0], subject.reused)


def test_gradients_are_the_models_own(subject: Subject) -> None:
    """A training step after a generation under DQAR has the gradients of the untouched transformer."""

    def gradients() -> list[Tensor]:
        model = subject.pipe.transformer.requires_grad_(True)
        model.zero_grad()
        seen: list[Any] = []
        hook = model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
        )
        subject.generate()
        hook.remove()
        args, kwargs = seen[1]
        output = model(*args, **kwargs)
        (output.sample if hasattr(output, "sample") else output[0]).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = gradients()
    dqar.enable(subject.pipe, REUSE.replace(warmup_steps=2))  # the call that is repeated has seen no reuse
    assert all(map(torch.equal, expected, gradients())) and expected


class Interrupted(Exception):
    """Raised from within a generation."""


def test_an_interrupted_generation_leaves_no_trace(subject: Subject) -> None:
    """After an exception in the middle of a generation the next one is as the first would have been."""
    dqar.enable(subject.pipe, REUSE)

    block = subject.tiny.blocks(subject.pipe.transformer)[1]
    calls = [0]

    def at_third_call(module: Any, args: Any, kwargs: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise Interrupted

    hook = block.register_forward_pre_hook(at_third_call, with_kwargs=True)
    with pytest.raises(Interrupted):
        subject.generate()
    hook.remove()
    assert torch.equal(subject.generate()[0], subject.reused)
    assert dqar.summary(subject.pipe).steps == 4


def test_guidance_that_is_cut_off_halves_the_batch_only() -> None:
    """A callback that ends guidance half-way changes the batch within a generation: no bit changes while
    nothing is reusable, and with reuse the summary still has every step."""
    subject = Subject("sd3")
    cutoff = SD3CFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=2)
    given = {"callback_on_step_end": cutoff, "callback_on_step_end_tensor_inputs": cutoff.tensor_inputs}
    plain, work = subject.generate(**given)
    assert not torch.equal(plain, subject.plain)
    dqar.enable(subject.pipe, OFF)
    assert torch.equal(subject.generate(**given)[0], plain)
    dqar.enable(subject.pipe, REUSE)
    latents, spared = subject.generate(**given)
    assert latents.isfinite().all() and sum(spared) < sum(work)
    assert dqar.summary(subject.pipe).steps == 4


def test_enable_and_disable_again_and_again(subject: Subject) -> None:
    """Another configuration replaces the one before, and a second `disable` does no harm."""
    state = state_of(subject.pipe)
    for _ in range(3):
        dqar.enable(subject.pipe, OFF)
        dqar.enable(subject.pipe, REUSE)
        assert torch.equal(subject.generate()[0], subject.reused)
    dqar.disable(subject.pipe)
    dqar.disable(subject.pipe)
    assert torch.equal(subject.generate()[0], subject.plain)
    assert left_behind(state, state_of(subject.pipe)).startswith(
        ("", "disable left something on transformer.")
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_another_precision_within_a_session(dtype: torch.dtype) -> None:
    """Moved to another precision while enabled, off is the untouched model's in that precision."""
    subject = Subject("flux")
    dqar.enable(subject.pipe, REUSE)
    subject.generate()
    subject.pipe.transformer.to(dtype)
    call = {name: v.to(dtype) for name, v in subject.tiny.call().items() if isinstance(v, Tensor)}
    reused = subject.generate(**call)[0]
    dqar.enable(subject.pipe, OFF)
    off = subject.generate(**call)[0]
    dqar.disable(subject.pipe)
    assert torch.equal(off, subject.generate(**call)[0])
    assert reused.isfinite().all() and not torch.equal(reused, off)
