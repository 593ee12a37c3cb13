"""A tiny VAE in place of the full one (--vae tiny): faster and less accurate.

Diffusers' AutoencoderTiny is distilled from a full VAE: its latents approximate the full one's, already scaled, and
without a posterior. The generator was trained with the full VAE, so its images lose some likeness.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.generation.latent_codec import CPU_IMAGES_AT_ONCE, LatentCodec, frozen
from models.layers.diffusers_classes import diffusers_class
from models.layers.model_config import build_described, read_model_config
from utils.core.errors import BadInput
from utils.weights.checkpoints import load_strict, read_weights, weights_file

TINY_CLASS = "AutoencoderTiny"
TINY_ADVICE = "give a folder in diffusers' format, such as madebyollin/taesd for the official networks"


class TinyCodec(LatentCodec):
    """A frozen AutoencoderTiny behind the interface of LatentCodec."""

    def __init__(self, vae: nn.Module, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.vae = frozen(vae, device, dtype)
        self.device, self.dtype = torch.device(device), dtype
        self.lean = self.is_wide = False
        self.n_at_once = CPU_IMAGES_AT_ONCE if self.device.type == "cpu" else None
        config: Any = vae.config
        self.scale = float(config.scaling_factor)
        self.channels = int(config.latent_channels)
        self.factor = int(config.upsampling_scaling_factor) ** (len(config.num_decoder_blocks) - 1)

    @classmethod
    def load(cls, directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> TinyCodec:
        """Open a diffusers folder; raises BadInput if it is missing, holds another class, or its weights do not fit."""
        config_path = directory / "config.json"
        require_tiny(config_path)
        with torch.device("meta"):
            vae = nn.Module.to(build_described(build_tiny, config_path), dtype)
        path = weights_file(directory)
        load_strict(vae, read_weights(path), path)
        return cls(vae, device, dtype)

    def encode(
        self,
        images: Float[Tensor, "b 3 hf wf"],
        generator: torch.Generator | None = None,  # noqa: ARG002  # no posterior to sample
    ) -> Float[Tensor, "b c h w"]:
        """Scaled latents, float32."""
        parts = images.split(self.n_at_once or len(images))
        latents = [self.vae.encode(self._prepared(part)).latents for part in parts]
        return torch.cat(latents).float() * self.scale


def build_tiny(config: dict[str, Any]) -> nn.Module:
    """An AutoencoderTiny with random weights; its config names the decoder's widths twice."""
    described = {key: value for key, value in config.items() if not key.startswith("_") and key != "block_out_channels"}
    return diffusers_class(TINY_CLASS)(**described)  # type: ignore[no-any-return]


def is_tiny(config_path: Path) -> bool:
    return config_path.is_file() and read_model_config(config_path).get("_class_name") == TINY_CLASS


def require_tiny(config_path: Path) -> None:
    if not is_tiny(config_path):
        found = (
            str(read_model_config(config_path).get("_class_name", "no class")) if config_path.is_file() else "nothing"
        )
        raise BadInput("not a tiny VAE", config_path, TINY_CLASS, found, TINY_ADVICE)


def load_tiny_or_full(directory: Path, tiny: bool, device: torch.device, dtype: torch.dtype) -> LatentCodec:
    """Open an AutoencoderTiny (``tiny``) or an AutoencoderKL; raises BadInput if the folder holds the other."""
    if tiny:
        return TinyCodec.load(directory, device, dtype)
    if is_tiny(directory / "config.json"):
        raise BadInput("tiny VAE", directory, "AutoencoderKL", TINY_CLASS, "say --vae tiny; it is an approximation")
    return LatentCodec.load(directory, device, dtype)
