"""The VAE's encoder on images with flat spans: equal rows and columns are computed once.

The masked crop is black from its middle down, the depth image everywhere but around the mouth. Convolutions of equal
rows are equal rows again, except near the span's ends, so most of a span can be omitted:

    image          input of the convolutions
    ······         ······
    ······         ······
    ██████ ┐       ██████   a margin as wide as the level's convolutions reach
    ██████ │ same  ██████
    ██████ │             ← omitted; the row before it represents these in the sums of the group normalisations
    ██████ ┘       ██████   the same margin

Nothing is approximated; only the order of sums differs. Each level keeps its own margins; attention gets the whole map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.layers.fast_blocks import is_plain_resnet, run_resnet

Span = tuple[int, int]  # first row (or column) and the one after the last


@dataclass(frozen=True)
class Axis:
    """The rows or columns of a feature map: their number, the flat spans, and the omitted ones.

    The row before an omitted span equals it, and so does the row after.
    """

    size: int
    flat: tuple[Span, ...] = ()
    omitted: tuple[Span, ...] = ()

    def folded(self, n_convs: int) -> Axis:
        """The axis with as many rows omitted as ``n_convs`` 3x3 convolutions and a halving afterwards allow."""
        margins = ((first + n_convs + 2, last - n_convs - 1) for first, last in self.flat)
        spans = ((start + start % 2, stop - stop % 2) for start, stop in margins)
        return Axis(self.size, self.flat, tuple((start, stop) for start, stop in spans if start < stop))

    def unfolded(self) -> Axis:
        return Axis(self.size, self.flat)

    def convolved(self, n_convs: int) -> Axis:
        """The axis after ``n_convs`` zero-padded 3x3 convolutions."""
        flat = tuple((first + n_convs, last - n_convs) for first, last in self.flat if last - first > 2 * n_convs)
        return Axis(self.size, flat, self.omitted)

    def halved(self) -> Axis:
        """The axis after a 3x3 convolution of stride 2 whose window starts at the pixel."""
        flat = tuple(((first + 1) // 2, (last - 1) // 2) for first, last in self.flat)
        omitted = tuple((start // 2, stop // 2) for start, stop in self.omitted)
        return Axis(self.size // 2, tuple(span for span in flat if span[0] < span[1]), omitted)

    def kept(self) -> Int64[Tensor, " k"]:
        """Indices of the rows that are not omitted."""
        is_kept = torch.ones(self.size, dtype=torch.bool)
        for start, stop in self.omitted:
            is_kept[start:stop] = False
        return is_kept.nonzero()[:, 0]

    def positions(self) -> Int64[Tensor, " n"]:
        """For every row the position among the kept rows of an equal one."""
        is_kept = torch.zeros(self.size, dtype=torch.int64)
        is_kept[self.kept()] = 1
        return is_kept.cumsum(0) - 1

    def repeats(self) -> list[tuple[int, int]]:
        """Positions among the kept rows of those that represent omitted ones, and the number of those."""
        positions = self.positions()
        return [(int(positions[start - 1]), stop - start) for start, stop in self.omitted]


@dataclass(frozen=True)
class FoldedMap:
    """A feature map without its omitted rows and columns."""

    features: Float[Tensor, "1 c k l"]
    rows: Axis
    columns: Axis

    def refolded(self, rows: Axis, columns: Axis) -> FoldedMap:
        """The map with other rows and columns omitted; restored ones are copied from their equals."""
        features = self.features
        for dim, before, after in ((2, self.rows, rows), (3, self.columns, columns)):
            if before.omitted != after.omitted:
                features = features.index_select(dim, before.positions()[after.kept()])
        return FoldedMap(features.contiguous(memory_format=torch.channels_last), rows, columns)

    def normalised(self, norm: nn.GroupNorm, features: Float[Tensor, "1 c k l"]) -> Float[Tensor, "1 c k l"]:
        """Group normalisation of features on this map's axes, omitted rows and columns included."""
        if not self.rows.omitted and not self.columns.omitted:
            return norm(features)
        mean, square = self._moments(norm, features)
        mean, square = (moment.repeat_interleave(features.shape[1] // norm.num_groups) for moment in (mean, square))
        variance = (square - mean * mean).clamp(min=0)
        weight, bias = (None if part is None else part.float() for part in (norm.weight, norm.bias))
        return F.batch_norm(features, mean, variance, weight, bias, False, 0.0, norm.eps)

    def _moments(self, norm: nn.GroupNorm, features: Tensor) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"]]:
        """Means of all values and of their squares by group: of kept values, then of omitted ones."""
        channels, height, width = features.shape[1:]
        groups, n_there = norm.num_groups, height * width
        plain = features if features.dtype != torch.float32 else features.contiguous()  # see ContiguousGroupNorm
        ones, zeros = torch.ones(channels), torch.zeros(channels)
        _, mean, deviation = torch.native_group_norm(plain, ones, zeros, 1, channels, n_there, groups, norm.eps)
        mean, variance = mean.flatten().float(), deviation.flatten().float() ** -2 - norm.eps
        sums = torch.stack((mean, variance + mean * mean)) * n_there
        for row, n_others in self.rows.repeats():
            line = features[0, :, row].float()
            sums += n_others * self._line_sums(line, groups)
        for column, n_others in self.columns.repeats():
            sums += n_others * _sums(features[0, :, :, column].float(), groups)
        mean, square = sums / (self.rows.size * self.columns.size)
        return mean, square

    def _line_sums(self, line: Float[Tensor, "c l"], groups: int) -> Float[Tensor, "2 g"]:
        """Sums over a row, omitted columns included."""
        sums = _sums(line, groups)
        for column, n_others in self.columns.repeats():
            sums = sums + n_others * _sums(line[:, column : column + 1], groups)
        return sums


def _sums(values: Float[Tensor, "c l"], groups: int) -> Float[Tensor, "2 g"]:
    """Sums of values and of squares by group of channels, per channel of the group."""
    by_group = values.reshape(groups, -1)
    n_channels = len(values) // groups
    return torch.stack((by_group.sum(1), (by_group * by_group).sum(1))) / n_channels


def can_fold(vae: Any, size: int) -> bool:
    """Whether the encoder is built as in Stable Diffusion's VAE, and halves ``size`` evenly."""
    blocks = list(vae.encoder.down_blocks)
    for block in blocks:
        if type(block).__name__ != "DownEncoderBlock2D" or not all(map(is_plain_resnet, block.resnets)):
            return False
        for part in block.downsamplers or ():
            if type(part).__name__ != "Downsample2D" or not part.use_conv or part.padding or part.norm is not None:
                return False
    return size % 2 ** len(blocks) == 0


def encode_folded(
    vae: Any, image: Float[Tensor, "1 3 hf wf"], flat_rows: tuple[Span, ...], flat_columns: tuple[Span, ...]
) -> Float[Tensor, "1 m h w"]:
    """Moments of the posterior of an image with equal rows, or columns, within each span."""
    encoder = vae.encoder
    rows, columns = Axis(image.shape[2], flat_rows), Axis(image.shape[3], flat_columns)
    current = FoldedMap(image, rows, columns)
    is_first = True
    for block in encoder.down_blocks:
        current = _run_level(encoder.conv_in if is_first else None, block, current)
        is_first = False
    features = current.refolded(current.rows.unfolded(), current.columns.unfolded()).features
    features = encoder.mid_block(features)
    moments = encoder.conv_out(F.silu(encoder.conv_norm_out(features), inplace=True))
    return moments if vae.quant_conv is None else vae.quant_conv(moments)


def _run_level(conv_in: nn.Module | None, block: Any, current: FoldedMap) -> FoldedMap:
    """The residual blocks of one resolution and the halving after them, if there is one."""
    n_convs = 2 * len(block.resnets) + (conv_in is not None)
    folded = current.refolded(current.rows.folded(n_convs), current.columns.folded(n_convs))
    features = folded.features if conv_in is None else conv_in(folded.features)
    for resnet in block.resnets:
        features = run_resnet(resnet, features, None, folded.normalised)
    rows, columns = folded.rows.convolved(n_convs), folded.columns.convolved(n_convs)
    for part in block.downsamplers or ():
        features = part(features)
        rows, columns = rows.halved(), columns.halved()
    return FoldedMap(features, rows, columns)
