"""State dicts out of files that nobody vouches for: reading, checking and hashing them."""

import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .errors import WeightsError

__all__ = ["SUFFIXES", "Shapes", "check_tensors", "one_line", "read_state", "tensor_hash"]

Shapes = Mapping[str, tuple[int, ...]]


def tensor_hash(state: Mapping[str, Tensor]) -> str:
    """Hash of weights that does not depend on the file they came in.

    sha256, as 64 hexadecimal digits, over each key in sorted order: its UTF-8 bytes, then the tensor's
    elements in row-major order as little-endian float32. Takes float32 tensors of any shape; raises TypeError
    for another dtype.
    """
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key]
        if tensor.dtype != torch.float32:
            raise TypeError(f"{key} is {tensor.dtype}; the tensor hash is defined on torch.float32")
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def one_line(text: object, limit: int = 200) -> str:
    """`text` as one line of at most `limit` characters: other people's error messages run to paragraphs."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _load_pth(path: Path) -> object:
    with warnings.catch_warnings():
        # torch warns of pickles of another protocol, with a path of its own, before it refuses them.
        warnings.simplefilter("ignore")
        return torch.load(path, weights_only=True, map_location="cpu")


_READERS: dict[str, Callable[[Path], object]] = {".safetensors": load_file, ".pth": _load_pth}
SUFFIXES = tuple(_READERS)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a flat state dict, name to CPU tensor, from a .safetensors or .pth file; no code in it runs.

    Raises WeightsError, naming the file, if it is missing, no regular file, empty, of another suffix,
    damaged, or holds anything but tensors.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise WeightsError(f"{path}: weights are read from {' or '.join(SUFFIXES)} files, not {path.suffix!r}")
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error
    if not path.is_file():
        raise WeightsError(f"{path}: not a regular file; give a {' or '.join(SUFFIXES)} file")
    if size == 0:
        raise WeightsError(f"{path}: the file is empty; download or save it again")
    try:
        content = reader(path)
    except Exception as error:  # a damaged or hostile file makes the unpickler raise nearly anything
        raise WeightsError(f"{path}: {_why_unreadable(error)}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict; save model.state_dict()")
    state = {}
    for key, value in content.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            raise WeightsError(
                f"{path}: entry {one_line(repr(key), 60)} is a {type(value).__name__}; "
                "a flat state dict is needed, names and tensors alone"
            )
        state[key] = value
    return state


def _why_unreadable(error: Exception) -> str:
    # torch's own message goes on for a page and advises to switch the protection off.
    forbidden = re.search(r"\bGLOBAL (\S+)", str(error))
    if forbidden:
        what = f"refused, it holds {one_line(forbidden[1], 60)}, not tensors alone"
        return f"{what}, and may run code when loaded; save it as .safetensors"
    if isinstance(error, pickle.UnpicklingError):
        return (
            "refused, it is damaged or holds more than tensors, which may run code when loaded; save it as .safetensors"
        )
    reason = one_line(str(error) or type(error).__name__, 120)
    return f"damaged or not a weight file ({reason}); download or save it again"


def check_tensors(
    state: Mapping[str, Tensor], layouts: Mapping[str, Shapes], net: str, where: str
) -> dict[str, Tensor]:
    """The tensors of `state`, checked to be those of `net` and copied: contiguous, float32, finite.

    layouts: for every net, the names of its tensors and their shapes. where: names the source in errors.
    Raises WeightsError if a name is missing or unexpected, if a shape or dtype is not the net's (and says
    whose weights these seem to be), or if a value is NaN or infinite.
    """
    needed = layouts[net]
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    problem = _mismatch(found, needed, net)
    if problem:
        twins = [other for other, shapes in layouts.items() if shapes == found]
        guess = f"; are these {twins[0]}'s weights?" if twins else f"; give a file of {net}'s weights"
        raise WeightsError(f"{where}: {problem}{guess}")
    for key, tensor in state.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if tensor.dtype != torch.float32 or not plain:
            kind = tensor.dtype if plain else f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise WeightsError(f"{where}: {key} is {kind}; torch.float32 is needed")
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{where}: {key} holds NaN or infinite values; give finite weights")
    # A copy, since tensors of a .pth may share one storage, which safetensors refuses to save.
    return {key: state[key].detach().clone(memory_format=torch.contiguous_format) for key in needed}


def _mismatch(found: Shapes, needed: Shapes, net: str) -> str | None:
    for key in needed:
        if key in found and found[key] != needed[key]:
            return f"{key} is {list(found[key])}, {net} needs {list(needed[key])}"
    for keys, what in (
        (needed.keys() - found.keys(), "missing"),
        (found.keys() - needed.keys(), "unexpected"),
    ):
        if keys:
            names = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            return f"not {net}'s weights, {what}: {one_line(names)}"
    return None
