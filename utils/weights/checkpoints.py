"""The only file that opens weights: find, read safely, load strictly, save atomically."""

from __future__ import annotations

import math
import pickle
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from utils.core.errors import BadInput
from utils.files.atomic import atomic_path
from utils.weights.mat_file import parse_mat
from utils.weights.official_files import fetch_advice

REFINER_WEIGHTS = "refiner.safetensors"
_N_NAMED_KEYS = 3
_LONGEST_TEXT = 1 << 20  # bytes


# Raised by the libraries on damaged or foreign files; found by fuzzing.
_UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, BadZipFile, struct.error, zlib.error, TokenError,
    RuntimeError, ValueError, TypeError, LookupError, AssertionError, AttributeError, EOFError, MemoryError, OSError,
)  # fmt: skip


def read_weights(path: Path) -> dict[str, Any]:
    """Read a checkpoint's top-level mapping on the CPU, without running code from it.

    .safetensors files give tensors by name; everything else is read with ``weights_only=True`` and may be nested;
    numpy scalars in it become plain numbers.
    Raises BadInput for a missing, truncated or unsafe file, an HTML page or a Git LFS pointer.
    """
    require_real_file(path)
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with warnings.catch_warnings(), _numbers_allowed():
            warnings.simplefilter("ignore")  # about old pickle protocols and storages
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            found = f"a Python object ({foreign.group(1)})"
            raise BadInput("unsafe checkpoint, not opened", path, "tensors only", found, fetch_advice(path)) from error
        found = "a damaged file or one of another type"
        raise BadInput("unreadable checkpoint", path, "a complete weights file", found, fetch_advice(path)) from error
    if not isinstance(content, Mapping):
        raise BadInput("checkpoint of another kind", path, "a mapping", type(content).__name__, fetch_advice(path))
    return dict(content)


def read_metadata(path: Path) -> dict[str, str]:
    """The free-text metadata of a .safetensors file."""
    require_real_file(path)
    try:
        with safe_open(path, framework="np") as weights:
            return dict(weights.metadata() or {})
    except SafetensorError as error:
        found = "a damaged file or one of another type"
        raise BadInput("unreadable weights", path, "a .safetensors file", found, fetch_advice(path)) from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read named arrays from .safetensors, .npz, .npy (under the name "array") or .mat; half floats become float32."""
    require_real_file(path)
    try:
        arrays = _read_arrays(path)
    except _UNREADABLE as error:
        found = "a damaged file or one of another type"
        raise BadInput("unreadable array file", path, "a complete file", found, fetch_advice(path)) from error
    return {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        return {name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in tensors.items()}
    if path.suffix == ".mat":
        return parse_mat(path.read_bytes())
    with path.open("rb") as file:
        content = np.load(file, allow_pickle=False)
        arrays = {"array": content} if isinstance(content, np.ndarray) else dict(content)
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("an archive of something else")
    return arrays


def read_words(path: Path) -> np.ndarray:
    """A binary file of four-byte little-endian words as uint32 [n]; view it as another type to read its values."""
    require_real_file(path)
    n_bytes = path.stat().st_size
    if n_bytes % 4:
        found = f"{n_bytes} bytes"
        raise BadInput("unreadable binary file", path, "a multiple of four bytes", found, fetch_advice(path))
    return np.fromfile(path, "<u4")


def read_numbers(path: Path) -> np.ndarray:
    """A short text file of finite numbers between spaces: float64 [n]."""
    require_real_file(path)
    with path.open("rb") as file:
        content = file.read(_LONGEST_TEXT + 1)
    try:
        numbers = np.array([float(word) for word in content.decode("ascii").split()])
    except ValueError:
        numbers = np.array([np.nan])
    if len(content) > _LONGEST_TEXT or not np.isfinite(numbers).all():
        found = "something else"
        raise BadInput("unreadable text file", path, "finite numbers between spaces", found, fetch_advice(path))
    return numbers


def load_strict(
    module: nn.Module, state: Mapping[str, Tensor], path: Path, rename: Callable[[str], str] | None = None
) -> None:
    """Copy a state dict into a module; every key must be there with its shape and finite numbers, and no other.

    ``rename`` maps a stored key to the module's own name. A module on the meta device takes the stored tensors
    themselves, so that nothing is initialised or held twice. Raises BadInput naming the first offending keys.
    """
    renamed = {rename(key) if rename else key: value for key, value in state.items()}
    expected = module.state_dict()
    missing = [key for key in expected if key not in renamed]
    unexpected = [key for key in renamed if key not in expected]
    if missing or unexpected:
        found = "; ".join(
            f"{len(keys)} {label} keys such as {', '.join(sorted(map(str, keys))[:_N_NAMED_KEYS])}"
            for label, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        )
        wanted = f"{len(expected)} keys of {type(module).__name__}"
        raise BadInput("weights of another network", path, wanted, found, fetch_advice(path))
    for key, value in renamed.items():
        want = tuple(expected[key].shape)
        found = str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
        if found != str(want):
            advice = f"check the config beside it, or {fetch_advice(path)}"
            raise BadInput(f"weight {key} has another shape", path, str(want), found, advice)
        if value.is_floating_point() and not math.isfinite(value.sum(dtype=torch.float32)):
            found = "infinite numbers, or none at all"
            raise BadInput(f"weight {key} is not finite", path, "finite numbers", found, fetch_advice(path))
    is_empty = any(value.is_meta for value in expected.values())
    module.load_state_dict({key: value.to(expected[key].dtype) for key, value in renamed.items()}, assign=is_empty)
    if is_empty:
        _require_filled(module)


def with_counters(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state with a zero for every batch norm's step counter that it lacks, as checkpoints before PyTorch 0.4.1 do.

    Only training reads the counters; nothing else is added.
    """
    missing = [key for key in network.state_dict() if key.endswith("num_batches_tracked") and key not in state]
    return {**state, **{key: torch.zeros((), dtype=torch.long) for key in missing}}


def _require_filled(module: nn.Module) -> None:
    """Raise RuntimeError if a buffer that no checkpoint stores was left on the meta device."""
    left = [name for name, value in module.named_buffers() if value.is_meta]
    if left:
        raise RuntimeError(f"{type(module).__name__} cannot be built empty: {', '.join(left)} would have no values")


def newest_checkpoint(directory: Path, stem: str = "model_ckpt_steps_") -> Path:
    """The checkpoint of a folder with the highest step in its name, .safetensors before .ckpt."""
    found = re.compile(re.escape(stem) + r"(\d+)\.(ckpt|safetensors)")
    candidates = [
        (int(match.group(1)), path.suffix, path)
        for path in sorted(directory.glob(f"{stem}*"))
        if (match := found.fullmatch(path.name))
    ]
    if not candidates:
        raise BadInput(
            "no checkpoint", directory, f"{stem}<steps>.ckpt or .safetensors", "none", fetch_advice(directory)
        )
    return max(candidates)[-1]


def weights_file(directory: Path, stem: str = "diffusion_pytorch_model") -> Path:
    """The weights of a diffusers folder, .safetensors before .bin."""
    for suffix in (".safetensors", ".bin"):
        path = directory / f"{stem}{suffix}"
        if path.is_file():
            return path
    raise BadInput("weights missing", directory, f"{stem}.safetensors or .bin", "neither", fetch_advice(directory))


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a .safetensors file, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(contiguous, temporary, metadata=dict(metadata or {}))


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a torch checkpoint (tensors and plain values only), whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save(dict(content), temporary)


def half_precision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating tensors as float16, others as they are."""
    return {name: t.to(torch.float16) if t.is_floating_point() else t for name, t in tensors.items()}


def require_real_file(path: Path) -> None:
    """Raise BadInput for a file that is missing or empty, an HTML page or a Git LFS pointer."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise BadInput("file missing", path, "a weights file", found, fetch_advice(path))
    with path.open("rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        raise BadInput("empty file", path, "weights", "nothing in it", fetch_advice(path))
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise BadInput("not a weights file", path, "weights", "an HTML page (a failed download)", fetch_advice(path))
    if head.startswith(b"version https://git-lfs"):
        raise BadInput(
            "not a weights file", path, "weights", "a Git LFS pointer", f"run git lfs pull, or {fetch_advice(path)}"
        )


# Optimizer and scheduler states often hold a numpy scalar beside the tensors, which torch's safe reader refuses. The
# pickle asks for two of numpy's constructors by name. Both are answered with these stand-ins, so that a file reaches
# nothing of numpy: they make a bool, int or float of at most eight bytes and refuse everything else.
_NUMBER_KINDS, _LARGEST_NUMBER = "biuf", 8  # of numpy's dtype kinds; bytes


class _NumberType:
    """Stand-in for numpy.dtype: pickled as a call with a code such as "f8", then a state with the byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:  # noqa: ARG002 (pickled so)
        dtype = np.dtype(code) if isinstance(code, str) else None
        if dtype is None or dtype.kind not in _NUMBER_KINDS or dtype.itemsize > _LARGEST_NUMBER:
            raise pickle.UnpicklingError(f"GLOBAL numpy.{code} is no number")
        self.dtype = dtype

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


def _number(of: _NumberType, content: bytes) -> bool | int | float:
    """Stand-in for numpy's function ``scalar``."""
    if not isinstance(of, _NumberType) or not isinstance(content, bytes) or len(content) != of.dtype.itemsize:
        raise pickle.UnpicklingError("not a numpy scalar")
    return np.frombuffer(content, of.dtype)[0].item()


def _numbers_allowed() -> AbstractContextManager[None]:
    """Inside it, torch's safe reader accepts numpy scalars."""
    return torch.serialization.safe_globals(
        [
            (_NumberType, "numpy.dtype"),
            (_number, "numpy.core.multiarray.scalar"),
            (_number, "numpy._core.multiarray.scalar"),  # since numpy 2
        ]
    )
