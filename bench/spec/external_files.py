"""Files that quality needs and that do not ship: given by the user, or found in torch hub's cache.

Their contents are part of a record's key; their paths stand nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BadInput
from bench.machine import hashing
from bench.methods.timesteps import timesteps_file
from bench.spec.run_spec import RunSpec
from bench.spec.settings import QualitySettings

# As torch-fidelity and torchvision name them in torch hub's cache: LPIPS's own layers, and VGG16.
LPIPS_FILES = ("weights-vgg16-lpips.pth", "vgg16-397923af.pth")
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's
ALLOWED = {
    "inception_weights": f"allowed: torch-fidelity's {INCEPTION_FILE}",
    "reference": "allowed: a directory of images, or an .npz with arr_0, or mu and sigma",
    "clip_weights": "allowed: a directory with a transformers CLIP model in safetensors and its processor",
    "lpips_weights": f"allowed: a directory with {' and '.join(LPIPS_FILES)}",
}


def refuse(field: str, value: object, why: str) -> BadInput:
    """Make the error that refuses a file which a quality field names.

    Args:
        field: One of the keys of ALLOWED.
        value: What was given.
        why: Why it cannot be used; 200 characters of it are shown.

    Returns:
        The error, for the caller to raise; it states what can be used.
    """
    return BadInput(f"quality.{field}: {str(value)!r}: {' '.join(why.split())[:200]}; {ALLOWED[field]}")


@contextmanager
def usable(field: str, path: object) -> Iterator[None]:
    """Blame whatever goes wrong in the body on the file that it reads.

    Args:
        field: One of the keys of ALLOWED.
        path: The file or directory that the field names.

    Raises:
        BadInput: The body raised anything.
    """
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # a foreign file can fail in any way
        raise refuse(field, path, str(error) or type(error).__name__) from error


def plan(spec: RunSpec) -> dict[str, str]:
    """Hashes of the files that a run's options name.

    Args:
        spec: The configuration; options that name no file cost nothing.

    Returns:
        16 hex digits for each of `plan`, `policy` and `timesteps` that is named.
    """
    named = timesteps_file(spec.options)
    if {"plan", "plan_path", "policy_path"} & spec.options.keys():
        from bench.methods.dqar import named_files

        named |= named_files(spec.options)
    return {what: _content(path) for what, path in named.items()}


def digests(quality: QualitySettings) -> dict[str, str]:
    """Hashes of the files that quality uses, those found in torch hub's cache included.

    Args:
        quality: The suite's quality settings, whose files are there.

    Returns:
        16 hex digits of the contents, by the field that names them.
    """
    by_field = {field: _digest(path) for field, path in quality.files().items() if field != "clip_weights"}
    if quality.clip_weights:
        by_field["clip_weights"] = _content(Path(quality.clip_weights))
    directory = lpips_directory(quality)
    if directory:
        by_field["lpips_weights"] = hashing.digest([directory / name for name in LPIPS_FILES], directory)
    return by_field


def _content(path: Path) -> str:
    """A hash of a file, or of all files in a directory."""
    if path.is_dir():
        return hashing.digest(sorted(file for file in path.rglob("*") if file.is_file()), path)
    return hashing.digest([path], path.parent)


def _digest(path: Path) -> str:
    """A hash of a file, or of the images in a directory."""
    if path.is_dir():
        from dqar.evaluation.image_files import listed_images

        return hashing.digest(listed_images(path)[0], path)
    return _content(path)


def lpips_directory(quality: QualitySettings) -> Path | None:
    """The directory of LPIPS's weights: the one given, else torch hub's cache.

    Args:
        quality: The suite's quality settings.

    Returns:
        None where it lacks one of LPIPS_FILES, or may not be read.
    """
    import torch

    given = quality.lpips_weights
    directory = Path(given) if given else Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return directory if all((directory / name).is_file() for name in LPIPS_FILES) else None
    except OSError:  # a home that may not be read
        return None
