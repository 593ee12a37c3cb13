"""The refiner: a small U-Net that blends the generated face with the composed reference and corrects the result.

The generator's low resolution and the VAE lose fine texture (skin, teeth, beard); the reference, warped to the same
lips (face_warp.py), keeps it. The network works on 4x4-pixel patches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from models.layers.model_config import read_model_config
from utils.core.errors import BadInput
from utils.files.atomic import atomic_path
from utils.weights.checkpoints import REFINER_WEIGHTS, half_precision, load_strict, read_weights, save_weights

N_INPUTS = 7  # channels: generated image, reference, depth
INITIAL_LOGIT = 2.0  # of the reference's weight in the blend
BLUR = 4  # pixels; detail that is smaller comes from the reference, outside the lips


@dataclass(frozen=True)
class RefinerConfig:
    """size: side of the refined image in pixels; channels: widths from full to lowest resolution.

    patch: side in pixels of the patches at full resolution; every further level halves the resolution.
    """

    size: int = 256
    channels: tuple[int, ...] = (64, 96, 128)
    patch: int = 4

    def __post_init__(self) -> None:
        coarsest = self.patch * 2 ** (len(self.channels) - 1)
        if not self.channels or min(self.size, self.patch, *self.channels) < 1 or self.size % coarsest:
            raise ValueError(f"no refiner has these sizes: {self}")


class Refiner(nn.Module):
    """Predicts at every pixel the weight of the reference in the blend, and a correction."""

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        n_values, widths = config.patch**2, config.channels
        self.enter = nn.Conv2d(N_INPUTS * n_values, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.down_blocks = nn.ModuleList(ResidualBlock(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(a + b, a, 3, padding=1) for a, b in pairwise(widths))
        self.up_blocks = nn.ModuleList(ResidualBlock(width) for width in widths[:-1])
        self.leave = nn.Conv2d(widths[0], 4 * n_values, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        with torch.no_grad():  # initially mostly the reference
            self.leave.bias.zero_()  # type: ignore[union-attr]
            self.leave.bias[:n_values] = INITIAL_LOGIT  # type: ignore[index]

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
            refiner = cls(RefinerConfig(**described | {"channels": tuple(described.get("channels", ()))}))
        except (TypeError, ValueError, RuntimeError) as error:
            expected = ", ".join(asdict(RefinerConfig()))
            raise BadInput("unusable config of a refiner", directory / "config.json", expected, str(error)) from error
        path = directory / REFINER_WEIGHTS
        load_strict(refiner, read_weights(path), path)
        refiner.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return refiner.eval()

    def save(self, directory: Path, half: bool = False, metadata: Mapping[str, str] | None = None) -> None:
        """Write the folder that ``load`` reads, its weights as float16 if ``half``."""
        state: dict[str, Any] = self.state_dict()
        save_weights(directory / REFINER_WEIGHTS, half_precision(state) if half else state, metadata)
        with atomic_path(directory / "config.json") as temporary:
            temporary.write_text(json.dumps(asdict(self.config), indent=2) + "\n")

    def forward(
        self,
        generated: Float[Tensor, "b 3 s s"],
        reference: Float[Tensor, "b 3 p p"],
        depth: Float[Tensor, "b 1 d d"],
        mouths: UInt8[Tensor, "b 1 p p"],
    ) -> Float[Tensor, "b 3 p p"]:
        """Refined images in the reference's dtype, not clipped. Images and depth are in [-1, 1].

        generated: decoded images, any size; reference: composed references of ``config.size``; depth: of the mouth;
        mouths: 1 inside the lips.
        """
        return reference + self.correct(generated, reference, depth, mouths)

    def correct(
        self,
        generated: Float[Tensor, "b 3 s s"],
        reference: Float[Tensor, "b 3 p p"],
        depth: Float[Tensor, "b 1 d d"],
        mouths: UInt8[Tensor, "b 1 p p"],
    ) -> Float[Tensor, "b 3 p p"]:
        """Difference of the refined image and the reference; see forward.

        Outside the lips it is smooth: the reference has the skin's detail, at any resolution.
        """
        size, kind = self.config.size, self.enter.weight.dtype
        enlarged = resize_images(generated, size).to(reference)
        images = (enlarged, reference, resize_images(depth, size))
        patches = torch.cat([to_patches(image.to(kind), self.config.patch) for image in images], dim=-1)
        features, kept = self.down_blocks[0](self.enter(patches.permute(0, 3, 1, 2))), []
        for down, block in zip(self.down, list(self.down_blocks)[1:], strict=True):
            kept.append(features)
            features = block(down(features))
        for up, block, skipped in list(zip(self.up, self.up_blocks, kept, strict=True))[::-1]:
            features = block(up(torch.cat((skipped, F.interpolate(features, scale_factor=2.0)), dim=1)))
        found = F.pixel_shuffle(self.leave(F.silu(features)), self.config.patch).to(reference)
        change = (1 - torch.sigmoid(found[:, :1])) * (enlarged - reference) + found[:, 1:]
        smooth = blur(change)
        return torch.lerp(smooth, change, blur(mouths.to(change)))


def blur(images: Float[Tensor, "b c p p"]) -> Float[Tensor, "b c p p"]:
    """Means of BLUR x BLUR pixels, interpolated."""
    means = F.avg_pool2d(images, BLUR, ceil_mode=True)
    return F.interpolate(means, images.shape[-2:], mode="bilinear")


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return features + self.second(F.silu(self.first(F.silu(features))))


def to_patches(images: Float[Tensor, "b c s s"], side: int) -> Float[Tensor, "b h w v"]:
    """Pixels of each patch as channels: F.pixel_unshuffle's order, channels-last layout."""
    n_patches = images.shape[-1] // side
    cut = images.unflatten(3, (n_patches, side)).unflatten(2, (n_patches, side))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3)


def resize_images(images: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c s s"]:
    """Bilinear, with antialiasing when it shrinks."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=images.shape[-1] > size)
