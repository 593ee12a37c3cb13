"""The refiner: what the generator drew, made sharp with the pixels of the composed reference.

The VAE and its small picture lose what skin, teeth and beard look like close up; the reference, bent to the same lips
(utils/face_warp.py), still has it. A few convolutions on 4x4-pixel patches decide where to take which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.latent_codec import read_model_config
from utils.checkpoints import half_precision, load_strict, read_weights, save_weights
from utils.errors import BadInput
from utils.store import atomic_path

WEIGHTS_NAME = "refiner.safetensors"


@dataclass(frozen=True)
class RefinerConfig:
    """size: side of the refined picture in pixels, a multiple of ``patch``; channels and n_blocks: of the network."""

    size: int = 256
    channels: int = 64
    n_blocks: int = 3
    patch: int = 4

    def __post_init__(self) -> None:
        sizes = (self.size, self.channels, self.n_blocks, self.patch)
        if not all(isinstance(size, int) for size in sizes):
            raise TypeError(f"sizes of a refiner are whole numbers: {self}")
        if min(self.size, self.channels, self.patch) < 1 or self.n_blocks < 0 or self.size % self.patch:
            raise ValueError(f"no refiner has these sizes: {self}")


class Refiner(nn.Module):
    """At every pixel a mix of the drawn picture and the reference, and a correction."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        n_values = config.patch**2
        self.enter = nn.Conv2d(6 * n_values, config.channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(config.channels) for _ in range(config.n_blocks))
        self.leave = nn.Conv2d(config.channels, 4 * n_values, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]  # begins as the mean of both pictures

    @classmethod
    def create(cls, config: RefinerConfig, seed: int = 0) -> Refiner:
        """A new, untrained refiner; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config)

    @classmethod
    def load(cls, directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Refiner:
        """Open a folder of config.json and refiner.safetensors, in eval mode; raises BadInput if it is unusable."""
        described = read_model_config(directory / "config.json")
        try:
            refiner = cls(RefinerConfig(**described))
        except (TypeError, ValueError, RuntimeError) as error:
            expected = ", ".join(asdict(RefinerConfig()))
            raise BadInput("unusable config of a refiner", directory / "config.json", expected, str(error)) from error
        path = directory / WEIGHTS_NAME
        load_strict(refiner, read_weights(path), path)
        refiner.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return refiner.eval()

    def save(self, directory: Path, half: bool = False, metadata: Mapping[str, str] | None = None) -> None:
        """Write the folder that ``load`` reads, its weights as float16 if ``half``."""
        state: dict[str, Any] = self.state_dict()
        save_weights(directory / WEIGHTS_NAME, half_precision(state) if half else state, metadata)
        with atomic_path(directory / "config.json") as temporary:
            temporary.write_text(json.dumps(asdict(self.config), indent=2) + "\n")

    def forward(self, drawn: Float[Tensor, "b 3 h w"], reference: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        """drawn: the decoded pictures, any size; reference: composed references of ``config.size``; all in [-1, 1].

        The result has the reference's dtype and is not clipped.
        """
        enlarged = resize_pictures(drawn, self.config.size).to(reference)
        both = torch.cat((enlarged, reference), dim=1).to(self.enter.weight.dtype)
        patches = F.pixel_unshuffle(both, self.config.patch).contiguous(memory_format=torch.channels_last)
        features = F.silu(self.enter(patches))
        for block in self.blocks:
            features = block(features)
        found = F.pixel_shuffle(self.leave(features), self.config.patch).to(reference)
        share = torch.sigmoid(found[:, :1])
        return torch.lerp(enlarged, reference, share) + found[:, 1:]


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return features + self.second(F.silu(self.first(features)))


def resize_pictures(pictures: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c s s"]:
    """Bilinear, averaging where it shrinks."""
    if pictures.shape[-1] == size:
        return pictures
    return F.interpolate(pictures, (size, size), mode="bilinear", antialias=pictures.shape[-1] > size)
