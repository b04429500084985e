"""What a transformer of diffusers offers: its blocks' attentions and MLPs in the order in which they run, and
what its call's arguments mean. It is looked at once, when DQAR is enabled."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import nn

from dqar.errors import invalid_value
from dqar.integration.attention_processor import why_not_plain

# Lists of blocks that are not the denoising blocks: they prepare the text, or another condition.
SIDE = re.compile(
    r"refiner|embed|encoder|text|context|motion|face|facial|perceiver|adapter|fusion|txt|controlnet"
)
# A block's attention to something else than its own tokens; it is left alone.
CROSS = re.compile(r"cross|attn2|_to_|encoder")
MLP = re.compile(r"(^|_)(ff|ffn|mlp|feed_forward)(_context|_i|_t|_moe_gen)?$")
# Attentions are known by type; these classes of diffusers share neither base.
ATTENTION_CLASSES = re.compile(r"Attention$|Attn$|LiteLA$")
# Blocks whose one MLP runs first on the latents' tokens and then on the prompt's.
ONE_MLP_FOR_BOTH = ("CogView4TransformerBlock", "GlmImageTransformerBlock", "EasyAnimateTransformerBlock")
# Where several lists of blocks do not run one after the other, as they were registered.
ORDERS: dict[str, Sequence[str]] = {"WanVACETransformer3DModel": ("vace_blocks", "blocks")}
INTERLEAVED = ("LatteTransformer3DModel", "TransformerSpatioTemporalModel")

LATENTS = (
    "hidden_states",
    "x",
    "sample",
    "latents",
    "decoder_input_tokens",
    "vision_tokens",
    "local_latents",
)
TIMESTEPS = (
    "timestep",
    "t",
    "timesteps",
    "decoder_noise_time",
    "vision_timesteps",
    "local_latents_time",
)
PROMPTS = ("encoder_hidden_states", "cap_feats", "prompt_embeds", "encoder_hidden_states_t5")

# Pipelines put the unconditional half of a guided batch first, but for these models'.
# Their batch is a list, or packed into one sequence: half of it is no half of their inputs.
UNSPLIT = ("ZImageTransformer2DModel", "MiniMaxH3Transformer3DModel", "Cosmos3OmniTransformer")
CONDITIONAL_FIRST = ("DiTTransformer2DModel", "LuminaNextDiT2DModel", "OmniGenTransformer2DModel")


class Call(NamedTuple):
    """What a call of the transformer is given."""

    latent: Any  # a tensor, or a list of one a sample
    timestep: Any
    prompt_length: int | None  # tokens, padding included; None = the model has no prompt


class Adapter:
    """A transformer, understood.

    Args:
        transformer: As a pipeline holds it, compiled or not; it is not changed.

    Raises:
        ValueError: Where the transformer's call has no latent or no timestep.

    Attributes:
        attentions: The self- or joint attention of each layer, in order.
        mlps: The MLPs of each layer: one, one for each of two streams, or none of their own.
        conditional: Index of the conditional half in a guided batch, None = its batch cannot be split.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self.outer, self.base = transformer, unwrapped(transformer)
        self.name = type(self.base).__name__
        signature = inspect.signature(type(self.base).forward)
        self.names = tuple(signature.parameters)[1:]
        self.latent, self.timestep = self._argument(LATENTS), self._argument(TIMESTEPS)
        self.prompt = next((name for name in PROMPTS if name in self.names), None)
        self._places = self.names.index(self.latent), self.names.index(self.timestep)
        blocks = [(b, a) for b in blocks_of(self.base) if (a := attention_of(b)) is not None]
        self.attentions = [attention for _, attention in blocks]
        self.mlps = [mlps_of(block) for block, _ in blocks]
        self.conditional: int | None = 0 if self.name in CONDITIONAL_FIRST else 1
        if self.name in UNSPLIT:
            self.conditional = None

    @property
    def heads(self) -> int | None:
        """Heads of an attention, where it states them."""
        heads = [getattr(attention, "heads", None) for attention in self.attentions[:1]]
        return heads[0] if heads and isinstance(heads[0], int) else None

    @property
    def compiled(self) -> list[Any]:
        """What `torch.compile` made: of the transformer as a whole, and of modules by `module.compile()`."""
        whole = [self.outer] if hasattr(self.outer, "_orig_mod") else []
        calls = [vars(module).get("_compiled_call_impl") for module in self.base.modules()]
        return whole + [call for call in calls if hasattr(call, "get_compiler_config")]

    @property
    def regional(self) -> bool:
        """Whether the blocks are compiled one by one, as `compile_repeated_blocks` of diffusers does it."""
        return any(vars(block).get("_compiled_call_impl") is not None for block in blocks_of(self.base))

    def arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments of a call of the transformer.

        Args:
            args: Those given by position.
            kwargs: Those given by name.

        Returns:
            Values by name.
        """
        return dict(zip(self.names, args, strict=False)) | kwargs

    def call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
        """What of a call's arguments decides.

        Args:
            args: Those given by position.
            kwargs: Those given by name.

        Returns:
            Latent, timestep and prompt length; each is None where the call lacks it.
        """
        given, (latent, timestep) = len(args), self._places
        return Call(
            args[latent] if latent < given else kwargs.get(self.latent),
            args[timestep] if timestep < given else kwargs.get(self.timestep),
            _prompt_length(self.arguments(args, kwargs).get(self.prompt)) if self.prompt else None,
        )

    def refuse_kv(self) -> None:
        """Refuse `reuse_mode = "kv"` where K and V of some layer cannot be cached.

        Raises:
            InvalidValue: Naming the first such attention, and why.
        """
        for attention in self.attentions:
            why = why_not_plain(attention)
            if why is not None:
                raise invalid_value("reuse_mode", "kv", f"'output' for {self.name}: {why}")

    def refuse_entropy(self, field: str, value: Any) -> None:
        """Refuse a field that needs entropy where some layer's attention is no softmax over keys.

        Args:
            field: Name of the configuration field that needs it.
            value: What the field holds.

        Raises:
            InvalidValue: Naming the first such attention.
        """
        for attention in self.attentions:
            processor = type(getattr(attention, "processor", None)).__name__
            kind = f"{type(attention).__name__} with {processor}"
            if "Linear" in processor or "GDN" in kind:
                off = "False" if field == "trace_entropy" else "infinity"
                raise invalid_value(field, value, f"{off} for {self.name}: its attention is linear ({kind})")

    def _argument(self, names: Sequence[str]) -> str:
        chosen = next((name for name in names if name in self.names), None)
        if chosen is None:
            raise ValueError(
                f"transformer = {self.name} has no argument {names[0]}; "
                f"allowed: a transformer called with one of {', '.join(names)}"
            )
        return chosen


def _prompt_length(prompt: Any) -> int | None:
    """Tokens of a prompt's embedding, or of the first of several text encoders', padding included.

    How many are real only a mask on the device knows, which the host would wait for, and not every model is
    given one; a batch of several prompts has no one number, yet one threshold.
    """
    prompt = prompt[0] if isinstance(prompt, (list, tuple)) and prompt else prompt
    return prompt.shape[-2] if getattr(prompt, "ndim", 0) >= 2 else None


def unwrapped(transformer: nn.Module) -> Any:
    """The model within what torch.compile, peft or distributed training put around it.

    Args:
        transformer: As a pipeline holds it.

    Returns:
        The innermost model; `transformer` itself where nothing is around it.
    """
    while True:
        if "_orig_mod" in transformer._modules:
            transformer = transformer._orig_mod  # type: ignore[assignment]
        elif "get_base_model" in dir(type(transformer)):
            transformer = transformer.get_base_model()  # type: ignore[operator]
        elif isinstance(transformer, nn.parallel.DistributedDataParallel):
            transformer = transformer.module
        else:
            return transformer


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The denoising blocks of a model; those that prepare the text or another condition are not among them.

    Args:
        model: A transformer, unwrapped.

    Returns:
        Blocks that hold attention, in the order in which they run; empty where none is recognised.
    """
    lists = dict(_block_lists(model))
    order = ORDERS.get(type(model).__name__)
    chosen = [lists[name] for name in order if name in lists] if order else list(lists.values())
    if type(model).__name__ in INTERLEAVED:
        return [block for pair in zip(*chosen, strict=True) for block in pair]
    return [block for blocks in chosen for block in blocks]


def _block_lists(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """The outermost lists whose members hold attention, by name."""
    for name, child in model.named_children():
        if SIDE.search(name):
            continue
        if isinstance(child, nn.ModuleList):
            if len(child) and all(not is_attention(b) and attention_of(b) is not None for b in child):
                yield path + name, child
        elif not is_attention(child):
            yield from _block_lists(child, f"{path}{name}.")


def is_attention(module: nn.Module) -> bool:
    """Whether a module is an attention, by the names of its types.

    Args:
        module: Any module.

    Returns:
        True for diffusers' attentions, whichever base they have; false for blocks that hold one.
    """
    kinds = {kind.__name__ for kind in type(module).__mro__}
    known = "Attention" in kinds or "AttentionModuleMixin" in kinds
    return known or bool(ATTENTION_CLASSES.search(type(module).__name__))


def attention_of(block: nn.Module) -> nn.Module | None:
    """A block's self- or joint attention: the first that is not to something else.

    Args:
        block: A denoising block.

    Returns:
        The attention; the first of any kind where all are to something else, None where there is none.
    """
    attentions = list(_attentions(block))
    self_attentions = [module for name, module in attentions if not CROSS.search(name)]
    return next(iter(self_attentions or [module for _, module in attentions]), None)


def _attentions(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if is_attention(child):
            yield name, child
        else:
            yield from _attentions(child)


def mlps_of(block: nn.Module) -> list[nn.Module]:
    """A block's MLPs: modules named as such that have layers of their own.

    Args:
        block: A denoising block.

    Returns:
        The MLPs in order, one that runs twice a step two times; empty where the block has none.
    """
    mlps = _mlps(block)
    twice = type(block).__name__ in ONE_MLP_FOR_BOTH and len(mlps) == 1
    return mlps * 2 if twice else mlps


def _mlps(block: nn.Module) -> list[nn.Module]:
    mlps: list[nn.Module] = []
    for name, child in block.named_children():
        if MLP.search(name) and any(True for _ in child.children()):
            mlps.append(child)
        elif name == "block":  # HiDream wraps its blocks
            mlps.extend(_mlps(child))
    return mlps
