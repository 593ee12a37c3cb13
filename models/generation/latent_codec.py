"""The VAE between images and scaled latents, and the generator's three input latents.

masked      the crop, its lower half black           (region to generate)
reference   the whole crop of a frame of the clip    (appearance)
depth       the depth image, its upper half black    (mouth shape)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from models.layers.diffusers_classes import diffusers_class
from models.layers.group_norm import use_contiguous_group_norm
from models.layers.model_config import build_described
from utils.imaging.images import to_signed
from utils.weights.checkpoints import load_strict, read_weights, weights_file

# names of the mid-block attention in weights saved by diffusers before 0.15
OLD_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
N_INPUT_IMAGES = 3
BLACK = -1.0
Span = tuple[int, int]  # rows or columns: the first, and the one after the last
CPU_IMAGES_AT_ONCE = 4  # wide layers then fit into the cache: half the time per image of a batch of 32
WIDE = 64  # channels; from here on, folding saves a CPU more time than it costs


def hide_lower_half(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Images in [-1, 1] with rows from h // 2 on black."""
    hidden = images.clone()
    hidden[:, :, images.shape[2] // 2 :] = BLACK
    return hidden


def hide_upper_half(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Images in [-1, 1] with rows before h // 2 black."""
    hidden = images.clone()
    hidden[:, :, : images.shape[2] // 2] = BLACK
    return hidden


class LatentCodec:
    """A frozen diffusers AutoencoderKL; latents are multiplied by its scaling factor, images are in [-1, 1].

    n_at_once: batch size that fits a CPU's cache; None: unlimited.
    lean: faster forms of the layers, equal up to the order of sums (fast_blocks.py, folded_encoder.py).
    """

    def __init__(
        self,
        vae: nn.Module,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        lean: bool = True,
    ) -> None:
        self.vae = frozen(vae, device, dtype)
        use_contiguous_group_norm(self.vae)
        self.device, self.dtype = torch.device(device), dtype
        config: Any = vae.config
        self.is_wide = self.device.type == "cpu" and min(config.block_out_channels) >= WIDE
        self.n_at_once: int | None = None if self.device.type != "cpu" else 1 if self.is_wide else CPU_IMAGES_AT_ONCE
        self.lean = lean
        if lean:
            from models.layers.fast_blocks import use_lean_resnets, use_phased_upsampling

            use_lean_resnets(self.vae)
            if self.is_wide:
                use_phased_upsampling(self.vae)
        self.scale: float = config.scaling_factor
        self.channels: int = config.latent_channels
        self.factor: int = 2 ** (len(config.block_out_channels) - 1)

    @classmethod
    def load(
        cls, directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> LatentCodec:
        """Open a diffusers folder (config.json, diffusion_pytorch_model.safetensors or .bin).

        Raises BadInput if a file is missing or the weights do not fit the config.
        """
        with torch.device("meta"):
            vae = nn.Module.to(build_described(build_vae, directory / "config.json"), dtype)
        path = weights_file(directory)
        load_strict(vae, read_weights(path), path, rename=current_name)
        return cls(vae, device, dtype)

    def encode(
        self, images: Float[Tensor, "b 3 hf wf"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Scaled latents, float32: the posterior's mean, or a sample of it if a generator is given."""
        latents = []
        for part in images.split(self.n_at_once or len(images)):
            posterior = self.vae.encode(self._prepared(part)).latent_dist
            latents.append(posterior.mode() if generator is None else posterior.sample(generator))
        return torch.cat(latents).float() * self.scale

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 hf wf"]:
        """Images, float32, near [-1, 1] but not clipped; gradients reach the latents."""
        return self.vae.decode(self._prepared(latents / self.scale)).sample.float()

    def generator_input(
        self,
        faces: Float[Tensor, "b 3 hf wf"],
        references: Float[Tensor, "b 3 hf wf"],
        depths: UInt8[Tensor, "b 1 hf wf"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b i h w"]:
        """Latents of the masked, reference and depth images, concatenated along the channels.

        faces, references: RGB crops in [-1, 1]; depths: see images.mouth_depth, 0 without depth.
        """
        parts = (
            self.encode_masked(faces, generator),
            self.encode(references, generator),
            self.encode_depth(depths, generator),
        )
        return torch.cat(parts, dim=1)

    def encode_masked(
        self, faces: Float[Tensor, "b 3 hf wf"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Latents of RGB crops in [-1, 1] with the lower half black."""
        hidden = hide_lower_half(faces)
        if not self._folds(faces.shape[2:], generator):
            return self.encode(hidden, generator)
        rows = ((faces.shape[2] // 2, faces.shape[2]),)
        return torch.cat([self._encode_folded(image, rows, ()) for image in hidden.split(1)])

    def encode_depth(
        self, depths: UInt8[Tensor, "b 1 hf wf"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Latents of depth images with the upper half black."""
        hidden = hide_upper_half(to_signed(depths).expand(-1, 3, -1, -1))
        if not self._folds(depths.shape[2:], generator):
            return self.encode(hidden, generator)
        latents = []
        for image in hidden.split(1):
            is_lit = image[0, 0] != BLACK
            latents.append(self._encode_folded(image, black_ends(is_lit.any(1)), black_ends(is_lit.any(0))))
        return torch.cat(latents)

    def _folds(self, size: Sequence[int], generator: torch.Generator | None) -> bool:
        """Whether to encode black spans once (folded_encoder.py). Sampled latents keep upstream's order."""
        if not (self.lean and self.is_wide) or generator is not None or torch.is_grad_enabled():
            return False
        from models.layers.folded_encoder import can_fold

        return all(can_fold(self.vae, side) for side in size)

    def _encode_folded(self, image: Tensor, rows: tuple[Span, ...], columns: tuple[Span, ...]) -> Tensor:
        from models.layers.folded_encoder import encode_folded

        moments = encode_folded(self.vae, self._prepared(image), rows, columns)
        return moments[:, : self.channels].float() * self.scale

    def _prepared(self, tensor: Tensor) -> Tensor:
        return tensor.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)


def frozen(vae: nn.Module, device: torch.device | str, dtype: torch.dtype) -> Any:
    """The network in channels-last layout, without gradients, in eval mode."""
    # diffusers' own "to" warns that some modules should stay float32, although its list of them is empty
    nn.Module.to(vae, device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return vae.requires_grad_(False).eval()


def black_ends(is_lit: Bool[Tensor, " n"]) -> tuple[Span, ...]:
    """Spans before the first and after the last row (or column) that is not black."""
    lit, size = is_lit.nonzero()[:, 0], len(is_lit)
    if len(lit) == 0:
        return ((0, size),)
    ends = ((0, int(lit[0])), (int(lit[-1]) + 1, size))
    return tuple((start, stop) for start, stop in ends if start < stop)


def build_vae(config: dict[str, Any]) -> nn.Module:
    """An AutoencoderKL with random weights; keys starting with _ are notes of the library that wrote them."""
    return diffusers_class("AutoencoderKL")(**{key: value for key, value in config.items() if not key.startswith("_")})


def current_name(key: str) -> str:
    """Current name of a weight saved by any version of diffusers."""
    parts = key.split(".")
    if "attentions" in parts and parts[-2] in OLD_ATTENTION_NAMES:
        parts[-2] = OLD_ATTENTION_NAMES[parts[-2]]
    return ".".join(parts)
