"""Diffusers' residual and upsampling blocks with fewer operations: same weights, same names, same results.

Importing this module imports diffusers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn

Normalise = Callable[[nn.GroupNorm, Tensor], Tensor]


class LeanResnetBlock(ResnetBlock2D):  # type: ignore[misc]  # diffusers is not typed
    """A residual block that, without gradients, works in place and skips a division by 1."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        if torch.is_grad_enabled() or not is_plain_resnet(self):
            return super().forward(input_tensor, temb, *args, **kwargs)
        return run_resnet(self, input_tensor, temb)


class PhasedUpsample(Upsample2D):  # type: ignore[misc]
    """Doubling followed by a 3x3 convolution as four 2x2 convolutions of the small image: 4/9 of the multiplications.

    A pixel of the doubled image and its eight neighbours are only four pixels of the small one, each with a sum of
    weights. For frozen weights: the sums are kept until the weights change.
    """

    def forward(self, hidden_states: Tensor, output_size: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        plain = output_size is None and self.norm is None and self.interpolate and not self.use_conv_transpose
        conv: Any = getattr(self, "conv", None)
        if torch.is_grad_enabled() or not plain or not is_3x3(conv) or hidden_states.device.type != "cpu":
            return super().forward(hidden_states, output_size, *args, **kwargs)
        return convolve_doubled(hidden_states, self._phase_weights(conv), conv.bias)

    def _phase_weights(self, conv: nn.Conv2d) -> Tensor:
        key = (conv.weight.data_ptr(), conv.weight.dtype, 0 if conv.weight.is_inference() else conv.weight._version)
        kept = self.__dict__.get("_kept_phases")
        if kept is None or kept[0] != key:
            kept = self.__dict__["_kept_phases"] = (key, phase_weights(conv.weight))
        return kept[1]


def use_lean_resnets(module: nn.Module) -> None:
    """Replace a network's residual blocks in place."""
    for part in module.modules():
        if type(part) is ResnetBlock2D:
            part.__class__ = LeanResnetBlock


def use_phased_upsampling(module: nn.Module) -> None:
    """Replace the upsampling blocks of a network with frozen weights in place."""
    for part in module.modules():
        if type(part) is Upsample2D:
            part.__class__ = PhasedUpsample


def is_plain_resnet(block: Any) -> bool:
    """Whether a block neither resamples nor scales, as in all of this project's networks."""
    is_whole = block.upsample is None and block.downsample is None and block.output_scale_factor == 1
    return is_whole and block.time_embedding_norm == "default" and isinstance(block.nonlinearity, nn.SiLU)


def is_3x3(conv: Any) -> bool:
    if not isinstance(conv, nn.Conv2d):
        return False
    return (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((3, 3), (1, 1), (1, 1), 1)


def run_resnet(
    block: Any,
    features: Float[Tensor, "b c h w"],
    temb: Float[Tensor, "b d"] | None = None,
    normalise: Normalise = lambda norm, features: norm(features),
) -> Float[Tensor, "b o h w"]:
    """A plain residual block without dropout; ``normalise`` applies its group normalisations."""
    hidden = block.conv1(F.silu(normalise(block.norm1, features), inplace=True))
    if block.time_emb_proj is not None and temb is not None:
        shift = temb if block.skip_time_act else F.silu(temb)
        hidden.add_(block.time_emb_proj(shift)[:, :, None, None])
    hidden = block.conv2(F.silu(normalise(block.norm2, hidden), inplace=True))
    skipped = features if block.conv_shortcut is None else block.conv_shortcut(features)
    return hidden.add_(skipped)


@torch.no_grad()
def phase_weights(weight: Float[Tensor, "o c 3 3"]) -> Float[Tensor, "p c 2 2"]:
    """The 2x2 kernels (p = 4 o) of a 3x3 kernel on a doubled image, by the parity of the pixel's row, then column.

    row of the doubled image   weights on the rows of the small one
    even                       before: first, own: second + third
    odd                        own: first + second, after: third
    """
    exact = weight.float()
    by_row = [_pairs(exact, 2, is_odd) for is_odd in (False, True)]
    phases = [_pairs(rows, 3, is_odd) for rows in by_row for is_odd in (False, True)]
    return torch.cat(phases).to(weight.dtype).contiguous(memory_format=torch.channels_last)


def _pairs(weight: Tensor, dim: int, is_odd: bool) -> Tensor:
    first, second, third = weight.split(1, dim=dim)
    return torch.cat((first + second, third) if is_odd else (first, second + third), dim=dim)


def convolve_doubled(
    images: Float[Tensor, "b c h w"], phases: Float[Tensor, "p c 2 2"], bias: Float[Tensor, " o"] | None
) -> Float[Tensor, "b o h2 w2"]:
    """The 3x3 convolution, with its border of zeros, of the image doubled to nearest neighbours."""
    height, width = images.shape[2:]
    n_outputs = len(phases) // 4
    biases = None if bias is None else bias.repeat(4)
    sums = F.conv2d(images, phases, biases, padding=1)
    size = (len(images), n_outputs, 2 * height, 2 * width)
    result = torch.empty(size, dtype=sums.dtype, device=sums.device, memory_format=torch.channels_last)
    for phase, part in enumerate(sums.split(n_outputs, dim=1)):
        row, column = divmod(phase, 2)
        result[:, :, row::2, column::2] = part[:, :, row : row + height, column : column + width]
    return result
