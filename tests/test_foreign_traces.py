"""A trace that somebody else wrote is read within limits, or refused in one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from dqar.errors import DQARError, InvalidFile
from dqar.policy.mlp_policy import LayerWiseReusePolicy
from dqar.training import traces
from dqar.training.policy_trainer import PolicyTrainer
from dqar.training.traces import Trace


def columns(**changed: Tensor) -> dict[str, Any]:
    content: dict[str, Any] = {
        "features": torch.zeros(2, 4),
        "layer": torch.tensor([0, 1]),
        "trajectory": torch.tensor([0, 1]),
        "reuse_error": torch.zeros(2),
        "final_reuse_error": torch.zeros(2),
    }
    return content | changed


def rows(**changed: Tensor) -> Trace:
    return Trace(**columns(**changed))


def stored(metadata: str, **changed: Tensor) -> bytes:
    """A file of two rows as `Trace.save` writes it, with any metadata and columns."""
    return save(columns(**changed), {"dqar_trace": metadata})


FOREIGN_TRACES = {
    "a header of 4 GB": (b"\xff\xff\xff\xff\0\0\0\0{}", "is not readable"),
    "deep metadata": (stored("[" * 100_000), "levels deep"),
    "NaN in the metadata": (stored('{"budget": NaN}'), "holds NaN"),
    "a list as metadata": (stored("[]"), "is not readable"),
    "no metadata": (save({"layer": torch.zeros(1)}), "is not readable"),
    "a truncated file": (stored("{}")[:-4], "is not readable"),
    "an infinite error": (stored("{}", final_reuse_error=torch.tensor([0.0, math.inf])), "infinite entries"),
    "a negative layer": (stored("{}", layer=torch.tensor([0, -1])), "layer = -1 is not allowed"),
    "shapes that disagree": (stored("{}", layer=torch.tensor([0, 1, 2])), "has shape"),
}


@pytest.mark.parametrize("name", FOREIGN_TRACES)
def test_a_foreign_trace_is_refused_within_limits(name: str, tmp_path: Path) -> None:
    """Sizes, depth and numbers of a trace's file are bounded, and what is refused is one clear error."""
    content, message = FOREIGN_TRACES[name]
    file = tmp_path / "trace.safetensors"
    file.write_bytes(content)
    with pytest.raises(InvalidFile, match=message) as caught:
        Trace.load(file)
    assert len(str(caught.value).splitlines()) == 1


def test_a_trace_larger_than_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace is read as far as its limit and no further."""
    rows().save(tmp_path / "trace.safetensors")
    monkeypatch.setattr(traces, "MAX_BYTES", 100)
    with pytest.raises(InvalidFile, match="is larger than 100 bytes"):
        Trace.load(tmp_path / "trace.safetensors")


def test_layers_that_a_policy_has_not_are_refused() -> None:
    """A trace of more layers than a policy has an embedding for is named before training."""
    with pytest.raises(DQARError, match=r"layer = \d+ is not allowed; allowed: below num_layers = 1"):
        PolicyTrainer(LayerWiseReusePolicy(1), budget=1.0).fit(rows(layer=torch.tensor([0, 3])))
