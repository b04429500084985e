"""Files that quality needs and that do not ship: given by the user, or found in torch hub's cache.

Their contents are part of a record's key; their paths stand nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BadInput
from bench.machine import hashing
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
    """The error that names the field, what was given, why it cannot be used and what can."""
    return BadInput(f"quality.{field}: {str(value)!r}: {' '.join(why.split())[:200]}; {ALLOWED[field]}")


@contextmanager
def usable(field: str, path: object) -> Iterator[None]:
    """Whatever goes wrong in the body, which reads the file of a field, is that file's fault."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # a foreign file can fail in any way
        raise refuse(field, path, str(error) or type(error).__name__) from error


def plan(spec: RunSpec) -> dict[str, str]:
    """A hash of the files that the run's options name, if they do: of the plan, and of the policy."""
    if not {"plan", "plan_path", "policy_path"} & spec.options.keys():
        return {}
    from bench.methods.dqar import named_files

    return {what: _content(path) for what, path in named_files(spec.options).items()}


def digests(quality: QualitySettings) -> dict[str, str]:
    """A hash of the contents of each file in use, by the field that names it."""
    found = {field: _digest(path) for field, path in quality.files().items() if field != "clip_weights"}
    if quality.clip_weights:
        found["clip_weights"] = _content(Path(quality.clip_weights))
    folder = lpips_folder(quality)
    if folder:
        found["lpips_weights"] = hashing.digest([folder / name for name in LPIPS_FILES], folder)
    return found


def _content(path: Path) -> str:
    """A hash of a file, or of all files in a directory."""
    if path.is_dir():
        return hashing.digest(sorted(file for file in path.rglob("*") if file.is_file()), path)
    return hashing.digest([path], path.parent)


def _digest(path: Path) -> str:
    """A hash of a file, or of the images in a directory."""
    if path.is_dir():
        from dqar.evaluation.image_files import found

        return hashing.digest(found(path)[0], path)
    return _content(path)


def lpips_folder(quality: QualitySettings) -> Path | None:
    """The directory of LPIPS's weights: the one given, else torch hub's cache; None if incomplete."""
    import torch

    given = quality.lpips_weights
    folder = Path(given) if given else Path(torch.hub.get_dir()) / "checkpoints"
    try:
        return folder if all((folder / name).is_file() for name in LPIPS_FILES) else None
    except OSError:  # a home that may not be read
        return None
