"""BiSeNet face parsing: segmentation of the face's pixels, for blending.

Architecture: Yu et al., "BiSeNet: Bilateral Segmentation Network" (2018), with a ResNet-18 context path.
Attribute names are the keys of the public checkpoint 79999_iter.pth (zllrunning/face-parsing.PyTorch).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from models.layers.resnet import BasicBlock, ResNet
from utils.weights.checkpoints import load_strict, read_weights

RESNET_18 = (2, 2, 2, 2)  # blocks of each stage
N_CLASSES = 19
FACE_CLASSES = range(1, 14)  # skin, brows, eyes, glasses, ears, earring, nose, mouth and lips; not neck, cloth, hair
PARSING_SIZE = 512
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ConvNormRelu(nn.Module):
    """Convolution that keeps the size, batch norm, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(n_out)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return F.relu(self.bn(self.conv(features)))


class AttentionRefinement(nn.Module):
    """Channel attention from global average pooling."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = ConvNormRelu(n_in, n_out)
        self.conv_atten = nn.Conv2d(n_out, n_out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(n_out)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        refined = self.conv(features)
        return refined * torch.sigmoid(self.bn_atten(self.conv_atten(_global_mean(refined))))


class ContextPath(nn.Module):
    """Backbone, then upsampling from 1/32 to 1/8 with attention."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet(BasicBlock, RESNET_18)
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvNormRelu(128, 128)
        self.conv_head16 = ConvNormRelu(128, 128)
        self.conv_avg = ConvNormRelu(512, 128, kernel_size=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Backbone features at 1/8, context at 1/8 and context at 1/16, 128 channels each."""
        _, at_8, at_16, at_32 = self.resnet(images)
        summary = self.conv_avg(_global_mean(at_32))  # broadcasts over the image
        context_16 = self.conv_head32(_nearest(self.arm32(at_32) + summary, at_16))
        context_8 = self.conv_head16(_nearest(self.arm16(at_16) + context_16, at_8))
        return at_8, context_8, context_16


class FeatureFusion(nn.Module):
    """Concatenates detail and context, then channel attention."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.convblk = ConvNormRelu(n_in, n_out, kernel_size=1)
        self.conv1 = nn.Conv2d(n_out, n_out // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out // 4, n_out, 1, bias=False)

    def forward(self, detail: Float[Tensor, "b c h w"], context: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e h w"]:
        fused = self.convblk(torch.cat((detail, context), dim=1))
        return fused + fused * torch.sigmoid(self.conv2(F.relu(self.conv1(_global_mean(fused)))))


class ClassHead(nn.Module):
    """Features to class scores."""

    def __init__(self, n_in: int, n_hidden: int, n_classes: int) -> None:
        super().__init__()
        self.conv = ConvNormRelu(n_in, n_hidden)
        self.conv_out = nn.Conv2d(n_hidden, n_classes, 1, bias=False)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.conv_out(self.conv(features))


class BiSeNet(nn.Module):
    """Class scores of every pixel; the two auxiliary heads serve training and match the checkpoint's keys."""

    def __init__(self, n_classes: int = N_CLASSES) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion(256, 256)
        self.conv_out = ClassHead(256, 256, n_classes)
        self.conv_out16 = ClassHead(128, 64, n_classes)
        self.conv_out32 = ClassHead(128, 64, n_classes)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """ImageNet-normalised RGB, sides divisible by 32, to logits of the same size."""
        detail, context_8, _ = self.cp(images)
        return _bilinear(self.conv_out(self.ffm(detail, context_8)), images)

    def auxiliary(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
        """Logits of the heads on the context at 1/8 and at 1/16, each at the size of the images."""
        _, context_8, context_16 = self.cp(images)
        return _bilinear(self.conv_out16(context_8), images), _bilinear(self.conv_out32(context_16), images)


def _global_mean(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3), keepdim=True)


def _nearest(features: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(features, like.shape[2:], mode="nearest")


def _bilinear(logits: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(logits, like.shape[2:], mode="bilinear", align_corners=True)


class FaceParsing:
    """Segments the face in a portrait crop."""

    def __init__(self, network: BiSeNet) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> FaceParsing:
        """Open 79999_iter.pth. Raises BadInput for weights of another network."""
        network = BiSeNet()
        load_strict(network, read_weights(path), path)
        return cls(network.to(device))

    @torch.no_grad()
    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "512 512"]:
        """255 on the face and 0 elsewhere, for an RGB crop of any size resized to 512x512."""
        weight = self.network.conv_out.conv_out.weight
        logits = self.network(prepare_parsing_input(image)[None].to(weight))
        classes = logits[0].argmax(dim=0)
        on_face = (classes >= FACE_CLASSES.start) & (classes < FACE_CLASSES.stop)
        return on_face.cpu().numpy().astype(np.uint8) * np.uint8(255)


def prepare_parsing_input(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 512 512"]:
    """Pillow's bilinear resize to 512x512, then ImageNet's mean and standard deviation."""
    from PIL import Image

    resized = Image.fromarray(image).resize((PARSING_SIZE, PARSING_SIZE), Image.Resampling.BILINEAR)
    levels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (levels - mean) / std
