"""Audio encoder and generator as one network, so that both can learn together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from models.critics import LowerFaces
from models.generator import Generator
from models.latent_codec import LatentCodec
from models.whisper_encoder import WhisperEncoder
from utils.dataset import Batch
from utils.errors import BadInput
from utils.images import to_signed
from utils.losses import GeneratorLosses, LossWeights, generator_losses, lower_half
from utils.segments import MEL_PER_ROW

UNET_FOLDER = "unet"
AUDIO_ENCODER_FILE = "whisper.pt"


class JointModel(nn.Module):
    """Sound segments and image latents in, latents of the new faces out."""

    def __init__(self, generator: Generator, audio_encoder: WhisperEncoder, train_audio_encoder: bool) -> None:
        """Raises BadInput if the encoder's width is not what the generator attends to."""
        super().__init__()
        width = audio_encoder.dims.n_audio_state
        if width != generator.audio_channels:
            expected = f"cross_attention_dim {generator.audio_channels}"
            raise BadInput("audio encoder and UNet do not fit", None, expected, f"states of {width}")
        self.generator, self.audio_encoder = generator, audio_encoder
        self.trains_audio_encoder = train_audio_encoder
        if not train_audio_encoder:
            audio_encoder.requires_grad_(False)

    def forward(
        self,
        latents: Float[Tensor, "b i h w"],
        log_mel: Float[Tensor, "g m t"],
        rows: Int[Tensor, "b n"],
        has_audio: Bool[Tensor, " g"],
    ) -> Float[Tensor, "b c h w"]:
        """latents: masked, reference, depth; item k belongs to sound segment k // (b / g), its window is ``rows``."""
        with torch.set_grad_enabled(self.trains_audio_encoder and torch.is_grad_enabled()):
            states = self.audio_encoder(log_mel) * has_audio[:, None, None, None]
        group = torch.arange(len(latents), device=latents.device) // (len(latents) // len(log_mel))
        windows = states[group[:, None], rows].flatten(1, 2)
        return self.generator(latents, windows)

    def export(self, directory: Path, half: bool) -> None:
        """Write what inference_joygen.py loads: the UNet's folder, and the audio encoder if it was trained."""
        self.generator.save(directory / UNET_FOLDER, half)
        if self.trains_audio_encoder:
            self.audio_encoder.save(directory / AUDIO_ENCODER_FILE)


@dataclass(frozen=True)
class Prediction:
    """What one pass over a batch of b items gives; n of them are decoded, spread over the clips."""

    latents: Float[Tensor, "b c h w"]
    target_latents: Float[Tensor, "b c h w"]
    images: Float[Tensor, "n 3 hf wf"]
    target_images: Float[Tensor, "n 3 hf wf"]
    mouths: Float[Tensor, "n 1 hf wf"]
    decoded: Int[Tensor, " n"]  # which items

    def losses(self, weights: LossWeights) -> GeneratorLosses:
        return generator_losses(
            self.latents, self.target_latents, self.images, self.target_images, self.mouths, weights
        )


def predict(
    model: nn.Module,
    codec: LatentCodec,
    batch: Batch,
    n_decoded: int | None = None,
    sampling: torch.Generator | None = None,
) -> Prediction:
    """One forward pass; the codec is frozen, but gradients of the images reach the model through its decoder.

    n_decoded: how many of the items are decoded (all by default).
    sampling: draw latents from the posterior, instead of its mean.
    """
    targets = to_signed(batch.targets)
    with torch.no_grad():
        inputs = codec.generator_input(batch.targets, batch.references, batch.depths, sampling)
        target_latents = codec.encode(targets, sampling)
    latents = model(inputs, batch.log_mel, batch.rows, batch.has_audio).float()
    n_items = len(latents)
    n_decoded = min(n_decoded or n_items, n_items)
    decoded = torch.arange(n_decoded, device=latents.device) * n_items // n_decoded
    images = codec.decode(latents[decoded])
    return Prediction(latents, target_latents, images, targets[decoded], batch.mouths[decoded].float(), decoded)


def lower_faces(images: Float[Tensor, "n 3 hf wf"], batch: Batch, items: Int[Tensor, " n"]) -> LowerFaces:
    """The lower halves of images of some of a batch's items, with what is heard at each."""
    clips = items // (len(batch.targets) // len(batch.log_mel))
    columns = (MEL_PER_ROW * batch.rows[items, :, None] + torch.arange(MEL_PER_ROW, device=items.device)).flatten(1)
    sound = batch.log_mel.transpose(1, 2)[clips[:, None], columns].transpose(1, 2)
    return LowerFaces(lower_half(images), sound, clips, batch.has_audio[clips])
