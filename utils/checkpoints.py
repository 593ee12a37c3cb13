"""The only file that opens weights: find, hash, read safely, load strictly, save atomically."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from utils.errors import BadInput
from utils.store import atomic_path

FETCH_ADVICE = "get the file again as pretrained_models/README.md says"
_N_NAMED_KEYS = 3


def read_weights(path: Path) -> dict[str, Any]:
    """Read a checkpoint's top-level mapping on the CPU, without running any code it may carry.

    .safetensors files give tensors by name; everything else is read with ``weights_only=True`` and may be nested.
    Raises BadInput for a missing, truncated or unsafe file, an HTML page or a Git LFS pointer.
    """
    _require_real_file(path)
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0][:160]
        raise BadInput("unsafe or damaged checkpoint", path, "tensors only", reason, FETCH_ADVICE) from error
    except (SafetensorError, RuntimeError, EOFError, BadZipFile, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise BadInput(
            "unreadable checkpoint", path, "a complete weights file", reason, FETCH_ADVICE
        ) from error
    if not isinstance(content, Mapping):
        raise BadInput("checkpoint of another kind", path, "a mapping", type(content).__name__, FETCH_ADVICE)
    return dict(content)


def read_metadata(path: Path) -> dict[str, str]:
    """The free-text metadata of a .safetensors file."""
    _require_real_file(path)
    with safe_open(path, framework="np") as weights:
        return dict(weights.metadata() or {})


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read named arrays from .safetensors, .npz, .npy (under the name "array") or .mat; half floats become float32."""
    _require_real_file(path)
    try:
        if path.suffix == ".safetensors":
            arrays = {name: tensor.numpy() for name, tensor in load_file(path).items()}
        elif path.suffix == ".mat":
            from scipy.io import loadmat

            arrays = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
        else:
            content = np.load(path, allow_pickle=False)
            arrays = {"array": content} if isinstance(content, np.ndarray) else dict(content)
    except (SafetensorError, ValueError, OSError, EOFError, BadZipFile, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:160]
        raise BadInput("unreadable array file", path, "a complete file", reason, FETCH_ADVICE) from error
    return {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}


def load_strict(
    module: nn.Module, state: Mapping[str, Tensor], path: Path, rename: Callable[[str], str] | None = None
) -> None:
    """Copy a state dict into a module; every key must be there with its shape, and no other.

    ``rename`` maps a stored key to the module's own name. Raises BadInput naming the first offending keys.
    """
    renamed = {rename(key) if rename else key: value for key, value in state.items()}
    expected = module.state_dict()
    missing = [key for key in expected if key not in renamed]
    unexpected = [key for key in renamed if key not in expected]
    if missing or unexpected:
        found = "; ".join(
            f"{len(keys)} {label} keys such as {', '.join(sorted(keys)[:_N_NAMED_KEYS])}"
            for label, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        )
        raise BadInput(
            "weights of another network", path, f"{len(expected)} keys of {type(module).__name__}", found
        )
    for key, value in renamed.items():
        if tuple(value.shape) != tuple(expected[key].shape):
            want, got = tuple(expected[key].shape), tuple(value.shape)
            raise BadInput(
                f"weight {key} has another shape", path, str(want), str(got), "check the config beside it"
            )
    module.load_state_dict({key: value.to(expected[key].dtype) for key, value in renamed.items()})


def newest_checkpoint(directory: Path, stem: str = "model_ckpt_steps_") -> Path:
    """The checkpoint of a folder with the highest step in its name."""
    candidates = {
        int(match.group(1)): path
        for path in directory.glob(f"{stem}*")
        if (match := re.fullmatch(re.escape(stem) + r"(\d+)\.(ckpt|safetensors)", path.name))
    }
    if not candidates:
        raise BadInput(
            "no checkpoint in folder", directory, f"{stem}<steps>.ckpt or .safetensors", "none", FETCH_ADVICE
        )
    return candidates[max(candidates)]


def weights_file(directory: Path, stem: str = "diffusion_pytorch_model") -> Path:
    """The weights of a diffusers folder, .safetensors before .bin."""
    for suffix in (".safetensors", ".bin"):
        path = directory / f"{stem}{suffix}"
        if path.is_file():
            return path
    raise BadInput("weights missing", directory, f"{stem}.safetensors or .bin", "neither", FETCH_ADVICE)


def save_weights(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
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


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _require_real_file(path: Path) -> None:
    if not path.is_file():
        raise BadInput(
            "file missing",
            path,
            "a weights file",
            "nothing" if not path.exists() else "a folder",
            FETCH_ADVICE,
        )
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if not head:
        raise BadInput("empty file", path, "weights", "0 bytes", FETCH_ADVICE)
    if head.startswith((b"<!doctype", b"<html")):
        raise BadInput(
            "not a weights file", path, "weights", "an HTML page (a failed download)", FETCH_ADVICE
        )
    if head.startswith(b"version https://git-lfs"):
        raise BadInput("not a weights file", path, "weights", "a Git LFS pointer", "run git lfs pull")
