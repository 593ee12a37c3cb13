"""Conditional flow-VAE over time: WaveNet stacks, an invertible coupling flow, and the VAE built from them.

All tensors are channels first, [B, C, T]. T counts motion frames (25 Hz); S = T / stride counts latent steps.
A mask is 1 on valid steps and 0 on padding. Architecture: PortaSpeech's flow-VAE (arXiv 2109.15166, section 3.2)
with the coupling layers of VITS (arXiv 2106.06103, section 2.5), as Real3DPortrait sizes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from utils.core.config import Layers, Size

LOG_2_PI = math.log(2 * math.pi)
BLOCK_FRAMES = 1000  # 40 s of motion at 25 Hz
_CONDITION_REACH = 2  # frames: two convolutions of three taps


class WeightNormConv1d(nn.Module):
    """Convolution whose weight is stored as direction and length: weight = weight_g * weight_v / |weight_v|.

    The parameter names are those of the published checkpoints; the length is kept so that same padding is exact.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        weight, bias = (p.detach() for p in nn.Conv1d(in_channels, out_channels, kernel_size).parameters())
        self.padding = (kernel_size - 1) // 2
        self.bias = nn.Parameter(bias)
        self.weight_g = nn.Parameter(_length(weight))
        self.weight_v = nn.Parameter(weight)

    def forward(self, x: Float[Tensor, "b i t"]) -> Float[Tensor, "b o t"]:
        weight = self.weight_v * (self.weight_g / _length(self.weight_v))
        return functional.conv1d(x, weight, self.bias, padding=self.padding)


def _length(weight: Float[Tensor, "o i k"]) -> Float[Tensor, "o 1 1"]:
    return torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)


class WaveNet(nn.Module):
    """Gated convolutions with residual and skip paths; one 1x1 convolution projects the condition for every layer.

          x ──┬── conv ──(+)── tanh · sigmoid ── 1x1 ──┬── half ──(+)── x of the next layer
              │           │                            │           │
              └───────────┼────────────────────────────┼───────────┘
        condition ────────┘                            └── half ── sum over layers ──► output

    The last layer has no residual half. Dilation is 1 throughout.
    """

    def __init__(self, hidden: int, kernel_size: int, n_layers: int, cond_channels: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.cond_layer = WeightNormConv1d(cond_channels, 2 * hidden * n_layers, 1)
        self.in_layers = nn.ModuleList(WeightNormConv1d(hidden, 2 * hidden, kernel_size) for _ in range(n_layers))
        widths = [2 * hidden] * (n_layers - 1) + [hidden]
        self.res_skip_layers = nn.ModuleList(WeightNormConv1d(hidden, width, 1) for width in widths)

    def forward(
        self, x: Float[Tensor, "b h t"], mask: Float[Tensor, "b 1 t"], cond: Float[Tensor, "b g t"]
    ) -> Float[Tensor, "b h t"]:
        skip_sum = torch.zeros_like(x)
        conds = self.cond_layer(cond).split(2 * self.hidden, dim=1)
        for conv, res_skip, layer_cond in zip(self.in_layers, self.res_skip_layers, conds, strict=True):
            filtered, gate = (conv(x) + layer_cond).chunk(2, dim=1)
            *residual, skip = res_skip(filtered.tanh() * gate.sigmoid()).split(self.hidden, dim=1)
            if residual:
                x = (x + residual[0]) * mask
            skip_sum = skip_sum + skip
        return skip_sum * mask


class Coupling(nn.Module):
    """Shift the second half of the channels by a function of the first half and the condition.

    Volume is preserved (the reference's "mean only" coupling), so the log determinant is 0. It starts as identity.
    """

    def __init__(self, channels: int, hidden: int, kernel_size: int, n_layers: int, cond_channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.pre = nn.Conv1d(half, hidden, 1)
        self.enc = WaveNet(hidden, kernel_size, n_layers, cond_channels)
        self.post = nn.Conv1d(hidden, half, 1)
        for parameter in self.post.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        x: Float[Tensor, "b c s"],
        mask: Float[Tensor, "b 1 s"],
        cond: Float[Tensor, "b g s"],
        inverse: bool = False,
    ) -> Float[Tensor, "b c s"]:
        kept, moved = x.chunk(2, dim=1)
        shift = self.post(self.enc(self.pre(kept) * mask, mask, cond))
        moved = (moved - shift if inverse else moved + shift) * mask
        return torch.cat([kept, moved], dim=1)


class ChannelFlip(nn.Module):
    """Reverse the channel order, so that the next coupling shifts the other half; its own inverse."""

    def forward(self, x: Float[Tensor, "b c s"], *_: object, **__: object) -> Float[Tensor, "b c s"]:
        return x.flip(1)


class CouplingFlow(nn.Module):
    """Couplings, each followed by a channel flip; maps posterior latents to the standard normal prior."""

    def __init__(
        self, channels: int, hidden: int, kernel_size: int, n_layers: int, n_couplings: int, cond_channels: int
    ) -> None:
        super().__init__()
        self.flows = nn.ModuleList()
        for _ in range(n_couplings):
            self.flows.append(Coupling(channels, hidden, kernel_size, n_layers, cond_channels))
            self.flows.append(ChannelFlip())

    def forward(
        self,
        z: Float[Tensor, "b c s"],
        mask: Float[Tensor, "b 1 s"],
        cond: Float[Tensor, "b g s"],
        inverse: bool = False,
    ) -> Float[Tensor, "b c s"]:
        for flow in reversed(self.flows) if inverse else self.flows:
            z = flow(z, mask, cond, inverse=inverse)
        return z


@dataclass(frozen=True)
class FlowVAESizes:
    """Channel and layer counts; the defaults are those of the published checkpoint."""

    hidden: Size = 256
    latent: Size = 16
    kernel_size: Size = 5
    n_encoder_layers: Layers = 8
    n_decoder_layers: Layers = 4
    flow_hidden: Size = 64
    flow_kernel_size: Size = 3
    n_flow_layers: Layers = 4
    n_couplings: Layers = 4
    stride: Size = 4  # motion frames per latent step


@dataclass(frozen=True)
class Reconstruction:
    """Result of one training pass.

    output [B, C, T], masked; kl: scalar, nats per valid step and channel; mean, log_std, prior_latent [B, latent, S].
    """

    output: Tensor
    kl: Tensor
    mean: Tensor
    log_std: Tensor
    prior_latent: Tensor


class FlowVAE(nn.Module):
    """VAE whose prior is a normal distribution transformed by a conditional flow."""

    def __init__(self, channels: int, cond_channels: int, sizes: FlowVAESizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.g_pre_net = nn.Sequential(_squeezing_conv(cond_channels, cond_channels, sizes.stride))
        self.encoder = _Encoder(channels, cond_channels, sizes)
        self.prior_flow = CouplingFlow(
            sizes.latent,
            sizes.flow_hidden,
            sizes.flow_kernel_size,
            sizes.n_flow_layers,
            sizes.n_couplings,
            cond_channels,
        )
        self.decoder = _Decoder(channels, cond_channels, sizes)

    def forward(
        self,
        x: Float[Tensor, "b c t"],
        mask: Float[Tensor, "b 1 t"],
        cond: Float[Tensor, "b g t"],
        noise: Float[Tensor, "b z s"],
    ) -> Reconstruction:
        """Encode, sample with the given standard normal noise, decode, and compare posterior with prior."""
        cond_squeezed = self.g_pre_net(cond)
        mask_squeezed = mask[:, :, :: self.sizes.stride]
        mean, log_std = self.encoder(x, mask_squeezed, cond_squeezed)
        latent = mean + noise * log_std.exp()
        output = self.decoder(latent, mask, cond) * mask
        prior_latent = self.prior_flow(latent, mask_squeezed, cond_squeezed)
        kl = _monte_carlo_kl(noise, log_std, prior_latent, mask_squeezed)
        return Reconstruction(output, kl, mean, log_std, prior_latent)

    def sample(self, cond: Float[Tensor, "b g t"], noise: Float[Tensor, "b z s"]) -> Float[Tensor, "b c t"]:
        """Decode prior noise (already times the temperature). The whole length counts as valid."""
        mask = torch.ones_like(cond[:, :1])
        mask_squeezed = mask[:, :, :: self.sizes.stride]
        latent = self.prior_flow(noise, mask_squeezed, self.g_pre_net(cond), inverse=True)
        return self.decoder(latent, mask, cond)


class _Encoder(nn.Module):
    def __init__(self, channels: int, cond_channels: int, sizes: FlowVAESizes) -> None:
        super().__init__()
        self.pre_net = nn.Sequential(_squeezing_conv(channels, sizes.hidden, sizes.stride))
        self.wn = WaveNet(sizes.hidden, sizes.kernel_size, sizes.n_encoder_layers, cond_channels)
        self.out_proj = nn.Conv1d(sizes.hidden, 2 * sizes.latent, 1)

    def forward(self, x: Tensor, mask: Tensor, cond: Tensor) -> Sequence[Tensor]:
        hidden = self.wn(self.pre_net(x) * mask, mask, cond)
        return self.out_proj(hidden).chunk(2, dim=1)


class _Decoder(nn.Module):
    def __init__(self, channels: int, cond_channels: int, sizes: FlowVAESizes) -> None:
        super().__init__()
        self.pre_net = nn.Sequential(
            nn.ConvTranspose1d(sizes.latent, sizes.hidden, kernel_size=sizes.stride, stride=sizes.stride)
        )
        self.wn = WaveNet(sizes.hidden, sizes.kernel_size, sizes.n_decoder_layers, cond_channels)
        self.out_proj = nn.Conv1d(sizes.hidden, channels, 1)

    def forward(self, latent: Tensor, mask: Tensor, cond: Tensor) -> Tensor:
        return self.out_proj(self.wn(self.pre_net(latent) * mask, mask, cond))


def _squeezing_conv(in_channels: int, out_channels: int, stride: int) -> nn.Conv1d:
    """Shorten time by ``stride`` with windows that overlap by half."""
    return nn.Conv1d(in_channels, out_channels, kernel_size=2 * stride, stride=stride, padding=stride // 2)


def _monte_carlo_kl(
    noise: Float[Tensor, "b z s"],
    log_std: Float[Tensor, "b z s"],
    prior_latent: Float[Tensor, "b z s"],
    mask: Float[Tensor, "b 1 s"],
) -> Float[Tensor, ""]:
    """Mean of log q(z|x) - log N(flow(z); 0, 1) over valid steps and channels, at a single sample."""
    log_posterior = -0.5 * noise.square() - log_std - 0.5 * LOG_2_PI
    log_prior = -0.5 * prior_latent.square() - 0.5 * LOG_2_PI
    return ((log_posterior - log_prior) * mask).sum() / mask.sum() / noise.shape[1]


@dataclass(frozen=True)
class Block:
    """Latent steps that one pass reads, and those whose output is kept; indices into the whole motion."""

    read: range
    kept: range


def motion_blocks(n_latent_steps: int, sizes: FlowVAESizes) -> Iterator[Block]:
    """Cut a long motion into blocks, each read with its receptive field; a short one is one block.

        frames    |--------------|--------------|---- ...
        block 0   [==============---]               kept (=), computed as context (-)
        block 1              [---==============---]

    The network is convolutional, so that the blocks equal the whole length up to rounding.
    """
    length = max(1, BLOCK_FRAMES // sizes.stride)
    reach = reach_in_latent_steps(sizes)
    if n_latent_steps <= length + 2 * reach:
        yield Block(range(n_latent_steps), range(n_latent_steps))
        return
    for start in range(0, n_latent_steps, length):
        stop = min(start + length, n_latent_steps)
        yield Block(range(max(0, start - reach), min(stop + reach, n_latent_steps)), range(start, stop))


def reach_in_latent_steps(sizes: FlowVAESizes) -> int:
    """Receptive field of an output frame to each side."""
    flow = sizes.n_couplings * sizes.n_flow_layers * (sizes.flow_kernel_size // 2)  # latent steps
    decoder = sizes.n_decoder_layers * (sizes.kernel_size // 2)  # frames
    frames = decoder + sizes.stride + _CONDITION_REACH  # the condition's windows overlap by half
    return flow + -(-frames // sizes.stride) + 1
