"""Access to the recorded reference numbers.

PARITY_DIR   folder of another recording of the same fixtures (default: tests/parity/fixtures)
PARITY_SEED  seed of its filled weights (default 7)
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.face3d.face_model import FaceModel
from models.generation.generator import Generator
from models.generation.latent_codec import LatentCodec
from utils.weights.checkpoints import save_weights

HERE = Path(__file__).parent
PARITY_DIR = Path(os.environ.get("PARITY_DIR", HERE / "fixtures"))
PARITY_SEED = int(os.environ.get("PARITY_SEED", "7"))

_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The folder of the fixtures, for those that are files of their own (synthetic_bfm/)."""
    return PARITY_DIR


@pytest.fixture(scope="session")
def parity() -> Callable[[str], Mapping[str, np.ndarray]]:
    """parity("bfm")["in_coeffs"]: the arrays of one recording."""

    def load(name: str) -> Mapping[str, np.ndarray]:
        return np.load(PARITY_DIR / f"{name}.npz", allow_pickle=False)

    return load


@pytest.fixture(scope="session")
def manifest() -> Callable[[str], dict[str, Any]]:
    def load(name: str) -> dict[str, Any]:
        return json.loads((PARITY_DIR / f"{name}.manifest.json").read_text())

    return load


@pytest.fixture(scope="session")
def filled(manifest) -> Callable[[str], dict[str, torch.Tensor]]:
    """filled("a2m_pitch"): the official state dict, filled by rule."""

    def load(name: str) -> dict[str, torch.Tensor]:
        arrays = fill.fill_from_manifest(manifest(name), PARITY_SEED)
        return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}

    return load


@pytest.fixture(scope="session")
def model(parity_dir) -> FaceModel:
    """The small face model in the official format."""
    return FaceModel.load(parity_dir / "synthetic_bfm")


@pytest.fixture(scope="session")
def networks(filled, manifest, tmp_path_factory) -> tuple[LatentCodec, Generator]:
    """Tiny codec and generator, opened from diffusers folders as the official ones are."""
    folders = []
    for name in ("vae_tiny", "unet_tiny"):
        directory = tmp_path_factory.mktemp(name)
        (directory / "config.json").write_text(json.dumps(manifest(name)["config"]))
        save_weights(directory / "diffusion_pytorch_model.safetensors", filled(name))
        folders.append(directory)
    return LatentCodec.load(folders[0]), Generator.load(folders[1])
