"""The generator: a UNet that maps masked, reference and depth latents to the new face's latents in one step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.layers.diffusers_classes import diffusers_class
from models.layers.group_norm import use_contiguous_group_norm
from models.layers.model_config import build_described
from utils.files.atomic import atomic_path
from utils.weights.checkpoints import half_precision, load_strict, read_weights, save_weights, weights_file

TIMESTEP = 0  # constant: the UNet runs once, without a diffusion schedule
WAVELENGTH_BASE = 10_000.0
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"


def positional_encoding(n_positions: int, n_channels: int) -> Float[Tensor, "n c"]:
    """Sinusoids of Vaswani et al. 2017, section 3.5: even channels sine, odd channels cosine."""
    positions = torch.arange(n_positions, dtype=torch.float32)[:, None]
    frequencies = torch.exp(torch.arange(0, n_channels, 2) * (-math.log(WAVELENGTH_BASE) / n_channels))
    table = torch.zeros(n_positions, n_channels)
    table[:, 0::2] = torch.sin(positions * frequencies)
    table[:, 1::2] = torch.cos(positions * frequencies)[:, : n_channels // 2]
    return table


class Generator(nn.Module):
    """Diffusers' UNet2DConditionModel at timestep 0, with audio windows for cross-attention."""

    def __init__(self, unet: nn.Module, lean: bool = True) -> None:
        super().__init__()
        self.unet = unet
        use_contiguous_group_norm(unet)
        if lean:
            from models.layers.fast_blocks import use_lean_resnets

            use_lean_resnets(unet)

    @classmethod
    def create(cls, config: Mapping[str, Any], seed: int = 0) -> Generator:
        """A new, untrained generator; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(build_unet(config))

    @classmethod
    def load(cls, directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Generator:
        """Open a diffusers folder (config.json, diffusion_pytorch_model.safetensors or .bin), in eval mode.

        Raises BadInput if a file is missing or the weights do not fit the config.
        """
        with torch.device("meta"):
            generator = cls(build_described(build_unet, directory / "config.json")).to(dtype)
        generator.load_unet(weights_file(directory))
        generator.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return generator.eval()

    def load_unet(self, path: Path) -> None:
        """Read the UNet's weights; names may carry the "module." of a multi-process training."""
        load_strict(self.unet, read_weights(path), path, rename=lambda key: key.removeprefix("module."))

    def save(self, directory: Path, half: bool = False, metadata: Mapping[str, str] | None = None) -> None:
        """Write a diffusers folder, its weights as float16 if ``half``."""
        state = self.unet.state_dict()
        save_weights(directory / WEIGHTS_NAME, half_precision(state) if half else state, metadata)
        config = dict(self.unet_config) | {"_class_name": type(self.unet).__name__}
        with atomic_path(directory / "config.json") as temporary:
            temporary.write_text(json.dumps(config, indent=2, sort_keys=True, default=list) + "\n")

    @property
    def audio_channels(self) -> int:
        return int(self.unet_config.cross_attention_dim)

    @property
    def unet_config(self) -> Any:
        """The UNet's sizes, by diffusers' names."""
        return self.unet.config

    def forward(self, latents: Float[Tensor, "b i h w"], audio: Float[Tensor, "b n d"]) -> Float[Tensor, "b c h w"]:
        """Latents of the new faces, scaled, in the dtype of the weights.

        latents: masked, reference and depth latents (i = 3 c); audio: one window of n states per frame.
        """
        positions = positional_encoding(audio.shape[1], audio.shape[2]).to(audio)
        return self.unet(latents, TIMESTEP, encoder_hidden_states=audio + positions, return_dict=False)[0]


def build_unet(config: Mapping[str, Any]) -> nn.Module:
    """A UNet2DConditionModel with random weights; keys starting with _ are notes of the library that wrote them."""
    return diffusers_class("UNet2DConditionModel")(
        **{key: value for key, value in config.items() if not key.startswith("_")}
    )
