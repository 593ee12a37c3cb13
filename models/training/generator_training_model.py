"""Audio encoder, generator and refiner as one trainable network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from models.audio.speech_encoder import SpeechEncoder
from models.audio.whisper_encoder import WhisperEncoder
from models.generation.generator import Generator
from models.generation.latent_codec import LatentCodec
from models.generation.refiner import Refiner, resize_images
from models.training.discriminators import LowerFaces
from utils.core.errors import BadInput
from utils.data.dataset import Batch
from utils.data.segments import MEL_PER_ROW
from utils.imaging.images import to_signed
from utils.training.losses import GeneratorLosses, LossWeights, generator_losses, image_losses, lower_half
from utils.weights.packs import REFINER_FOLDER

UNET_FOLDER = "unet"
AUDIO_ENCODER_FILE = "whisper.pt"


class Generated(NamedTuple):
    """Latents of b new faces; of those that were decoded, the VAE's images and the refiner's."""

    latents: Float[Tensor, "b c h w"]
    images: Float[Tensor, "n 3 s s"] | None = None
    refined: Float[Tensor, "n 3 p p"] | None = None


class GeneratorTrainingModel(nn.Module):
    """Sound segments and image latents in, new faces out."""

    def __init__(
        self,
        generator: Generator,
        audio_encoder: WhisperEncoder | None,
        train_audio_encoder: bool,
        refiner: Refiner | None = None,
    ) -> None:
        """audio_encoder: None if the batches bring the states of the speech encoder.

        Raises BadInput if the encoder's width is not the generator's cross-attention width.
        """
        super().__init__()
        width = SpeechEncoder.width if audio_encoder is None else audio_encoder.width
        if width != generator.audio_channels:
            expected = f"cross_attention_dim {generator.audio_channels}"
            raise BadInput("audio encoder and UNet do not fit", None, expected, f"states of {width}")
        self.generator, self.audio_encoder, self.refiner = generator, audio_encoder, refiner
        self.trains_audio_encoder = train_audio_encoder
        if audio_encoder is not None and not train_audio_encoder:
            audio_encoder.requires_grad_(False)

    def forward(
        self,
        latents: Float[Tensor, "b i h w"],
        log_mel: Float[Tensor, "g m t"],
        rows: Int[Tensor, "b n"],
        has_audio: Bool[Tensor, " g"],
        decode: Callable[[Float[Tensor, "b c h w"]], Float[Tensor, "k 3 s s"]] | None = None,
        references: tuple[Float[Tensor, "k 3 p p"], Float[Tensor, "k 1 s s"], UInt8[Tensor, "k 1 p p"]] | None = None,
        windows: Float[Tensor, "b v d"] | None = None,
    ) -> Generated:
        """latents: masked, reference, depth; item k belongs to sound segment k // (b / g), its window is ``rows``.

        decode: decodes all or some of the latents; references: composed references, depth images and mouths of
        these, for the refiner. windows: states of the speech encoder, without an audio encoder of the model's own.
        """
        if windows is None:
            windows = self.encode(log_mel, rows, has_audio)
        new = self.generator(latents, windows)
        if decode is None:
            return Generated(new)
        images = decode(new)
        refined = None if self.refiner is None or references is None else self.refiner(images, *references)
        return Generated(new, images, refined)

    def encode(
        self, log_mel: Float[Tensor, "g m t"], rows: Int[Tensor, "b n"], has_audio: Bool[Tensor, " g"]
    ) -> Float[Tensor, "b v d"]:
        """Windows of the model's audio encoder."""
        if self.audio_encoder is None:
            raise ValueError("expected windows of states, since the model has no audio encoder")
        with torch.set_grad_enabled(self.trains_audio_encoder and torch.is_grad_enabled()):
            states = self.audio_encoder(log_mel) * has_audio[:, None, None, None]
        group = torch.arange(len(rows), device=rows.device) // (len(rows) // len(log_mel))
        return states[group[:, None], rows].flatten(1, 2)

    def export(self, directory: Path, half: bool) -> None:
        """Write the files that inference_joygen.py loads: UNet, refiner, and the audio encoder if it was trained."""
        self.generator.save(directory / UNET_FOLDER, half)
        if self.refiner is not None:
            self.refiner.save(directory / REFINER_FOLDER, half)
        if self.audio_encoder is not None and self.trains_audio_encoder:
            self.audio_encoder.save(directory / AUDIO_ENCODER_FILE)


@dataclass(frozen=True)
class Prediction:
    """Result of one pass over a batch of b items; n of them are decoded, spread over the clips.

    refined, fine_images and mouths have the size of the batch's images, the generator's own may be smaller.
    """

    latents: Float[Tensor, "b c h w"]
    target_latents: Float[Tensor, "b c h w"]
    images: Float[Tensor, "n 3 hf wf"]
    target_images: Float[Tensor, "n 3 hf wf"]
    refined: Float[Tensor, "n 3 p p"] | None
    fine_images: Float[Tensor, "n 3 p p"]
    mouths: Float[Tensor, "n 1 p p"]
    decoded: Int[Tensor, " n"]  # indices of the decoded items

    @property
    def best_images(self) -> Float[Tensor, "n 3 p p"]:
        """The refiner's images if there is one, else the VAE's."""
        return self.images if self.refined is None else self.refined

    def losses(self, weights: LossWeights) -> GeneratorLosses:
        """Losses of the VAE's images; with a refiner its image terms are added."""
        mouths = resize_images(self.mouths, self.images.shape[-1])
        losses = generator_losses(self.latents, self.target_latents, self.images, self.target_images, mouths, weights)
        if self.refined is None:
            return losses
        pixel, gradient = image_losses(self.refined, self.fine_images, self.mouths, weights)
        refined = weights.pixel * pixel + weights.gradient * gradient
        return GeneratorLosses(losses.total + refined, losses.latent, pixel, gradient)


def predict(
    model: nn.Module,
    codec: LatentCodec,
    batch: Batch,
    n_decoded: int | None = None,
    sampling: torch.Generator | None = None,
) -> Prediction:
    """One forward pass; the codec is frozen, but gradients of the images reach the model through its decoder.

    n_decoded: how many of the items are decoded (all by default).
    sampling: sample latents from the posterior, instead of its mean.
    """
    fine_images, references = to_signed(batch.targets), to_signed(batch.references)
    size = batch.depths.shape[-1]
    targets = resize_images(fine_images, size)
    with torch.no_grad():
        inputs = codec.generator_input(targets, resize_images(references, size), batch.depths, sampling)
        target_latents = codec.encode(targets, sampling)
    n_items = len(targets)
    n_decoded = min(n_decoded or n_items, n_items)
    decoded = torch.arange(n_decoded, device=targets.device) * n_items // n_decoded
    new = model(
        inputs,
        batch.log_mel,
        batch.rows,
        batch.has_audio,
        lambda latents: codec.decode(latents[decoded].float()),
        (references[decoded], to_signed(batch.depths[decoded]), batch.mouths[decoded]),
        batch.windows,
    )
    return Prediction(
        new.latents.float(),
        target_latents,
        new.images,
        targets[decoded],
        new.refined,
        fine_images[decoded],
        batch.mouths[decoded].float(),
        decoded,
    )


def lower_faces(images: Float[Tensor, "n 3 hf wf"], batch: Batch, items: Int[Tensor, " n"]) -> LowerFaces:
    """Lower halves of the images of some of a batch's items, with the sound at each frame."""
    clips = items // (len(batch.targets) // len(batch.log_mel))
    columns = (MEL_PER_ROW * batch.rows[items, :, None] + torch.arange(MEL_PER_ROW, device=items.device)).flatten(1)
    sound = batch.log_mel.transpose(1, 2)[clips[:, None], columns].transpose(1, 2)
    return LowerFaces(lower_half(images), sound, clips, batch.has_audio[clips])
