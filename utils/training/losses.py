"""Losses of generator training: L1 of latents and of decoded lower halves, and PSNR."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from utils.core.config import Amount


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms; the reference has latent 1, pixel 2 and no others.

    The last three need networks and are added by GeneratorLearner.
    """

    latent: Amount = 1.0  # L1 between latents
    pixel: Amount = 2.0  # L1 between lower halves of the images, in [-1, 1]
    gradient: Amount = 0.0  # L1 between the horizontal and vertical differences of the lower halves: crisper edges
    mouth: Amount = 0.0  # extra weight of pixels inside the lips, in the pixel term
    perceptual: Amount = (
        0.0  # distance of the lower halves in features of pictures (models/training/perceptual_loss.py)
    )
    adversarial: Amount = 0.0  # patch discriminator on the lower halves (models/training/discriminators.py)
    sync: Amount = 0.0  # sync discriminator on lower halves and sound (models/training/discriminators.py)


@dataclass(frozen=True)
class GeneratorLosses:
    """Scalars; ``total`` is the weighted sum, the others are without weights."""

    total: Float[Tensor, ""]
    latent: Float[Tensor, ""]
    pixel: Float[Tensor, ""]
    gradient: Float[Tensor, ""]


def generator_losses(
    latents: Float[Tensor, "b c h w"],
    target_latents: Float[Tensor, "b c h w"],
    images: Float[Tensor, "n 3 hf wf"],
    target_images: Float[Tensor, "n 3 hf wf"],
    mouths: Float[Tensor, "n 1 hf wf"],
    weights: LossWeights,
) -> GeneratorLosses:
    """The reference's L1 losses and their two extensions.

    images: decoded predictions of n <= b items; mouths: 1 inside the lips of the target, else 0.
    """
    latent = (latents.float() - target_latents).abs().mean()
    pixel, gradient = image_losses(images, target_images, mouths, weights)
    total = weights.latent * latent + weights.pixel * pixel + weights.gradient * gradient
    return GeneratorLosses(total, latent, pixel, gradient)


def image_losses(
    images: Float[Tensor, "n 3 hf wf"],
    target_images: Float[Tensor, "n 3 hf wf"],
    mouths: Float[Tensor, "n 1 hf wf"],
    weights: LossWeights,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """L1 of the lower halves, weighted by ``weights.mouth``, and L1 of their horizontal and vertical differences."""
    difference = lower_half(images - target_images)
    emphasis = 1 + weights.mouth * lower_half(mouths)
    pixel = (emphasis * difference.abs()).mean()
    gradient = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return pixel, gradient


def lower_half(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w"]:
    """Rows from h // 2 on, the generated part."""
    return images[:, :, images.shape[2] // 2 :]


def lower_half_psnr(images: Float[Tensor, "b 3 h w"], targets: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each lower half in dB, images in [-1, 1]."""
    peak = 2.0
    errors = lower_half(images.clamp(-1, 1) - targets).square().mean(dim=(1, 2, 3))
    return 10 * (peak**2 / errors.clamp(min=1e-12)).log10()
