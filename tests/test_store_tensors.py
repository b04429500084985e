"""Tensors that the runs of a suite share: found by all that they depend on, made again where damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.spec.run_spec import RunSpec
from bench.store.tensors import Cache, Tensors

INPUTS = {
    "model": "m",
    "packages": {"torch": "2"},
    "sources": "s",
    "plan": "p",
    "policy": "q",
    "timesteps": "t",
}


def spec(**changes: Any) -> RunSpec:
    return RunSpec(**{"suite": "suite", "name": "name", "method": "dqar", "model": "embedded"} | changes)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, INPUTS)


def tensors(value: float = 1.0) -> Tensors:
    return {"a": torch.full((2, 3), value), "b": torch.arange(4)}


def test_tensors_are_made_once(cache: Cache) -> None:
    """What was made is kept under its name, and comes back bit for bit, strided ones too."""
    calls: list[str] = []

    def make() -> Tensors:
        calls.append("made")
        return tensors() | {"strided": torch.arange(6).view(2, 3).T}

    assert not cache.has("it") and cache.read("it") is None
    first, second = cache.kept("it", make), cache.kept("it", make)
    assert calls == ["made"] and cache.has("it") and not cache.has("other")
    assert first.keys() == second.keys() == {"a", "b", "strided"}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [path.name for path in cache.directory.iterdir()] == ["it.safetensors"]


@pytest.mark.parametrize("at", [0, 40, -40, -1])
def test_one_wrong_bit_makes_it_again(cache: Cache, at: int) -> None:
    """In the header, the tensors or the digest."""
    cache.write("it", tensors())
    path = cache.directory / "it.safetensors"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert cache.read("it") is None
    assert cache.kept("it", lambda: tensors(2.0))["a"][0, 0] == 2.0
    again = cache.read("it")
    assert again is not None and again["a"][0, 0] == 2.0


@pytest.mark.parametrize("length", [0, 10, 32, 100])
def test_a_truncated_file_is_made_again(cache: Cache, length: int) -> None:
    """However much of it is left."""
    cache.write("it", tensors())
    path = cache.directory / "it.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert cache.read("it") is None


def with_inputs(cache: Cache, **changes: Any) -> Cache:
    return Cache(cache.directory, cache.inputs | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"suite": "other"},
        {"name": "other"},
        {"method": "fora"},
        {"options": {"preset": "fast"}},
        {"timing": {"min_pairs": 9}},
        {"quality": {"n": 2, "converged_n": 2}},
        {"memory": False},
        {"timeout_s": 9},
    ],
)
def test_the_baselines_images_do_not_depend_on_these(cache: Cache, changes: dict[str, Any]) -> None:
    """Names, method, and what is done with the images leave the key of the untouched model's as it is."""
    assert cache.key(spec(**changes)) == cache.key(spec())


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"num_inference_steps": 9}, {"batch_size": 2}, {"model": "other"}]
)
def test_the_baselines_images_depend_on_these(cache: Cache, changes: dict[str, Any]) -> None:
    """What decides an image changes the key, which is 16 hex digits."""
    assert cache.key(spec(**changes)) != cache.key(spec())
    assert len(bytes.fromhex(cache.key(spec()))) == 8


def test_the_key_is_of_what_the_model_runs_on(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model, packages, threads and what the caller adds count; the candidate's inputs and files do not."""
    key = cache.key(spec())
    for name in ("sources", "plan", "policy", "timesteps", "inception_weights", "reference", "lpips_weights"):
        assert with_inputs(cache, **{name: "other"}).key(spec()) == key
    for name in ("model", "packages"):
        assert with_inputs(cache, **{name: "other"}).key(spec()) != key
    assert cache.key(spec(), 1) != key != cache.key(spec(), 2) != cache.key(spec(), 1)
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    assert cache.key(spec()) != key


def test_the_candidates_images_depend_on_its_own_too(cache: Cache) -> None:
    """Method, options, sources, plan, policy and timesteps, and what the caller adds; its name does not."""
    key = cache.candidate_key(spec())
    assert cache.candidate_key(spec(name="other")) == key != cache.key(spec())
    changed: list[dict[str, Any]] = [{"method": "fora"}, {"options": {"preset": "fast"}}, {"seed": 1}]
    others = [cache.candidate_key(spec(**change)) for change in changed]
    others += [
        with_inputs(cache, **{name: "other"}).candidate_key(spec())
        for name in ("sources", "plan", "policy", "timesteps", "model")
    ]
    others += [cache.candidate_key(spec(), "more"), cache.candidate_key(spec(), "even more")]
    assert len({key, *others}) == len(others) + 1
    bare = Cache(cache.directory, {"model": "m"})
    assert bare.candidate_key(spec()) == bare.candidate_key(spec(name="other"))


def test_inputs_in_another_order_are_the_same(cache: Cache) -> None:
    """The key is of content, not of the order in which it was collected."""
    turned = Cache(cache.directory, dict(reversed(INPUTS.items())))
    assert turned.key(spec()) == cache.key(spec())
