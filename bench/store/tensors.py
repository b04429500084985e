"""What the runs of a suite share: tensors in its `.cache`, found by a hash of all they depend on.

A directory like it may be removed at any time: what is missing, or damaged, is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from bench.machine import files
from bench.spec.run_spec import RunSpec
from bench.spec.settings import FILES
from dqar.errors import InvalidFile
from dqar.utils.foreign import read_bytes

Tensors = dict[str, Tensor]
DIGEST_BYTES = 32  # behind the tensors: of them
# What no image depends on: names, what is done with the images, and how long that may take.
OWN_FILES = ("plan", "policy", "timesteps")  # that a configuration's options name
OWN = ("sources", *OWN_FILES)  # what only the candidate's depend on
ASIDE = ("suite", "name", "timing", "quality", "memory", "timeout_s")


@dataclass(frozen=True)
class Cache:
    """The directory, and what the run depends on besides its configuration (`keys.inputs`)."""

    directory: Path
    inputs: dict[str, Any]

    def key(self, spec: RunSpec, *more: Any) -> str:
        """A hash of all that the untouched model's images depend on: neither the method nor this project's
        sources.

        Args:
            spec: The configuration.
            *more: What else the tensors depend on; it has to fit JSON.

        Returns:
            16 hex digits.
        """
        aside = (*ASIDE, "method", "options")
        config = {name: value for name, value in spec.public().items() if name not in aside}
        given = {name: self.inputs[name] for name in self.inputs if name not in (*OWN, *FILES)}
        # On a CPU the number of threads decides the order of additions, hence the last bits.
        content = [config, given, torch.get_num_threads(), *more]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def candidate_key(self, spec: RunSpec, *more: Any) -> str:
        """The same for the images of the configuration under test: its method and the sources too.

        Args:
            spec: The configuration.
            *more: What else the tensors depend on; it has to fit JSON.

        Returns:
            16 hex digits.
        """
        of_method = (spec.method, spec.public()["options"], *(self.inputs.get(name) for name in OWN))
        return self.key(spec, *of_method, *more)

    def kept(self, name: str, make: Callable[[], Tensors]) -> Tensors:
        """Read tensors, or make and keep them where they are missing or damaged.

        Args:
            name: Path below the directory, without suffix.
            make: Makes the tensors.

        Returns:
            The tensors on the CPU where they were read, else as `make` returned them.
        """
        tensors = self.read(name)
        if tensors is None:
            tensors = make()
            self.write(name, tensors)
        return tensors

    def read(self, name: str) -> Tensors | None:
        """Read tensors.

        Args:
            name: Path below the directory, without suffix.

        Returns:
            None where they are missing or damaged, be it in one bit.
        """
        try:
            path = self._path(name)
            content = read_bytes(path, "cache", path.stat().st_size)
            body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
            return load(body) if hashlib.sha256(body).digest() == digest else None
        except (OSError, InvalidFile, SafetensorError):
            return None

    def write(self, name: str, tensors: Tensors) -> None:
        """Keep tensors, written whole or not at all.

        Args:
            name: Path below the directory, without suffix.
            tensors: By name, of any dtype and shape.

        Raises:
            BadInput: The file cannot be written.
        """
        body = save({key: value.contiguous() for key, value in tensors.items()})
        files.write_atomic(self._path(name), body + hashlib.sha256(body).digest())

    def has(self, name: str) -> bool:
        """Whether there is a file of that name, which may be damaged.

        Args:
            name: Path below the directory, without suffix.

        Returns:
            True where it is there.
        """
        return self._path(name).exists()

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.safetensors"
