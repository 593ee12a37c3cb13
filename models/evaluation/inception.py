"""InceptionV3 of the Fréchet Inception distance: an image to 2048 features.

Architecture: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016), in the form of
TensorFlow's inception-2015-12-05 graph. It differs from torchvision's in three places: average pools leave the padding
out of the mean, the last block pools by maximum, and the classifier has 1008 outputs. Attribute names are the keys of
the public conversion pt_inception-2015-12-05-6726825d.pth (mseitzer/pytorch-fid).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from utils.weights.checkpoints import load_strict, read_weights, with_counters

N_FEATURES = 2048
N_CLASSES = 1008
INPUT_SIZE = 299  # pixels
NORM_EPSILON = 1e-3
BATCH_SIZE = 16

Kernel = int | tuple[int, int]


class ConvNormRelu(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: Kernel, stride: int = 1, padding: Kernel = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=NORM_EPSILON)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        return F.relu(self.bn(self.conv(features)))


def chain(parent: nn.Module, name: str, n_in: int, widths: Sequence[int], kernels: Sequence[Kernel]) -> None:
    """Add convolutions that keep the size to ``parent``: <name>_1, <name>_2 and so on."""
    for number, (n_out, kernel) in enumerate(zip(widths, kernels, strict=True), start=1):
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        layer = ConvNormRelu(n_in, n_out, kernel, padding=(height // 2, width // 2))
        parent.add_module(f"{name}_{number}", layer)
        n_in = n_out


def run_chain(parent: nn.Module, name: str, length: int, features: Tensor) -> Tensor:
    for number in range(1, length + 1):
        features = parent.get_submodule(f"{name}_{number}")(features)
    return features


def mean_pool(features: Tensor) -> Tensor:
    """3x3 mean at every position, without the padding."""
    return F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """1x1, 5x5 and double 3x3 branches at 35x35."""

    def __init__(self, n_in: int, n_pool: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormRelu(n_in, 64, 1)
        chain(self, "branch5x5", n_in, (48, 64), (1, 5))
        chain(self, "branch3x3dbl", n_in, (64, 96, 96), (1, 3, 3))
        self.branch_pool = ConvNormRelu(n_in, n_pool, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        branches = [self.branch1x1(x), run_chain(self, "branch5x5", 2, x), run_chain(self, "branch3x3dbl", 3, x)]
        return torch.cat([*branches, self.branch_pool(mean_pool(x))], dim=1)


class BlockB(nn.Module):
    """From 35x35 to 17x17."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNormRelu(n_in, 384, 3, stride=2)
        chain(self, "branch3x3dbl", n_in, (64, 96), (1, 3))
        self.branch3x3dbl_3 = ConvNormRelu(96, 96, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        branches = [self.branch3x3(x), run_chain(self, "branch3x3dbl", 3, x)]
        return torch.cat([*branches, F.max_pool2d(x, 3, stride=2)], dim=1)


class BlockC(nn.Module):
    """7x7 convolutions as pairs of 1x7 and 7x1, at 17x17."""

    def __init__(self, n_in: int, n_inside: int) -> None:
        super().__init__()
        flat, tall, inside = (1, 7), (7, 1), n_inside
        self.branch1x1 = ConvNormRelu(n_in, 192, 1)
        chain(self, "branch7x7", n_in, (inside, inside, 192), (1, flat, tall))
        chain(self, "branch7x7dbl", n_in, (inside, inside, inside, inside, 192), (1, tall, flat, tall, flat))
        self.branch_pool = ConvNormRelu(n_in, 192, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        branches = [self.branch1x1(x), run_chain(self, "branch7x7", 3, x), run_chain(self, "branch7x7dbl", 5, x)]
        return torch.cat([*branches, self.branch_pool(mean_pool(x))], dim=1)


class BlockD(nn.Module):
    """From 17x17 to 8x8."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNormRelu(n_in, 192, 1)
        self.branch3x3_2 = ConvNormRelu(192, 320, 3, stride=2)
        chain(self, "branch7x7x3", n_in, (192, 192, 192), (1, (1, 7), (7, 1)))
        self.branch7x7x3_4 = ConvNormRelu(192, 192, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d p q"]:
        branches = [run_chain(self, "branch3x3", 2, x), run_chain(self, "branch7x7x3", 4, x)]
        return torch.cat([*branches, F.max_pool2d(x, 3, stride=2)], dim=1)


class BlockE(nn.Module):
    """Branches that end in a 1x3 beside a 3x1, at 8x8."""

    def __init__(self, n_in: int, pools_by_maximum: bool) -> None:
        super().__init__()
        self.pools_by_maximum = pools_by_maximum
        self.branch1x1 = ConvNormRelu(n_in, 320, 1)
        chain(self, "branch3x3", n_in, (384,), (1,))
        self.branch3x3_2a = ConvNormRelu(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvNormRelu(384, 384, (3, 1), padding=(1, 0))
        chain(self, "branch3x3dbl", n_in, (448, 384), (1, 3))
        self.branch3x3dbl_3a = ConvNormRelu(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvNormRelu(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = ConvNormRelu(n_in, 192, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        single = run_chain(self, "branch3x3", 1, x)
        double = run_chain(self, "branch3x3dbl", 2, x)
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.pools_by_maximum else mean_pool(x)
        ends = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        ends += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *ends, self.branch_pool(pooled)], dim=1)


class InceptionV3(nn.Module):
    """RGB images in [-1, 1], 299 px, to the features before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNormRelu(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNormRelu(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNormRelu(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNormRelu(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormRelu(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d = BlockC(768, 128), BlockC(768, 160), BlockC(768, 160)
        self.Mixed_6e = BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, pools_by_maximum=False), BlockE(2048, pools_by_maximum=True)
        self.fc = nn.Linear(N_FEATURES, N_CLASSES)  # stored in the file, not used

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> InceptionV3:
        """Open pt_inception-2015-12-05-6726825d.pth. Raises BadInput for weights of another network."""
        with torch.device("meta"):
            network = cls()
        load_strict(network, with_counters(read_weights(path), network), path)
        return network.to(device).eval().requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2048"]:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=(2, 3))

    @torch.inference_mode()
    def features(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float64[np.ndarray, "n 2048"]:
        """Features of RGB images of any size, resized to 299 px (bilinear, without smoothing, as pytorch-fid does)."""
        weight = self.fc.weight
        found = np.empty((len(images), N_FEATURES))
        for start in range(0, len(images), BATCH_SIZE):
            batch = torch.from_numpy(images[start : start + BATCH_SIZE]).to(weight.device)
            levels = batch.permute(0, 3, 1, 2).to(weight.dtype) / 255
            resized = F.interpolate(levels, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False)
            found[start : start + BATCH_SIZE] = self(2 * resized - 1).cpu().numpy()
        return found


@dataclass
class FeatureStatistics:
    """Running mean and covariance of features in constant memory."""

    n: int = 0
    total: Float64[np.ndarray, " c"] | float = 0.0
    products: Float64[np.ndarray, "c c"] | float = 0.0

    def add(self, features: Float64[np.ndarray, "n c"]) -> None:
        self.n += len(features)
        self.total = self.total + features.sum(axis=0)
        self.products = self.products + features.T @ features

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self.total) / self.n

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, as numpy.cov. Raises ValueError for fewer than two samples."""
        if self.n < 2:
            raise ValueError(f"a covariance needs two samples, found {self.n}")
        return (np.asarray(self.products) - self.n * np.outer(self.mean, self.mean)) / (self.n - 1)


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½) (Heusel et al. 2017, equation 6).

    The trace of the root is the sum of the roots of the eigenvalues of C1^½ C2 C1^½, which is symmetric: no complex
    numbers arise, also where there are fewer samples than features.
    """
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ second.covariance @ root)
    difference = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return float(difference @ difference + traces - 2 * np.sqrt(eigenvalues.clip(0)).sum())
