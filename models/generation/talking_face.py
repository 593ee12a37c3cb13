"""Generation of the new mouth: prepared frames and audio windows → frames with the generated face blended in.

frame ──► crop ──► masked, reference, depth latents ──► generator ──► decoded face ──► pasted into the frame
                                                            ▲
audio window ───────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.audio.speech_encoder import SpeechEncoder, load_audio_encoder
from models.audio.whisper_encoder import WhisperEncoder
from models.generation.face_crops import Batch, SourceFrame, prepare_batches
from models.generation.face_pasting import GeneratedFace, paste
from models.generation.generator import Generator
from models.generation.latent_cache import LatentCache
from models.generation.latent_codec import N_INPUT_IMAGES, LatentCodec
from models.generation.refiner import Refiner, resize_images
from models.generation.tiny_codec import load_tiny_or_full
from utils.core.allocator import keep_freed_memory
from utils.core.errors import BadInput
from utils.core.streaming import MOST_WORKERS, map_ahead, run_ahead, shared_threads
from utils.imaging.blending import Parser
from utils.imaging.images import stack_gray, stack_images, to_bytes, to_signed


@dataclass(frozen=True)
class TalkingFrame:
    """A source frame and its image with the new mouth; without a face, the source image.

    mask: uint8, the size of the face box, opacity of the generated face; None without a face.
    """

    source: SourceFrame
    image: np.ndarray
    mask: np.ndarray | None = None


class TalkingFace:
    """The networks of stage 3 behind one call: crops, depth and audio windows in, faces out.

    ``image_size``: side in pixels of the generator's images. ``sampling``: samples the latents from the VAE's posterior
    as upstream does; None: its mean, which flickers less. ``refiner``: used with composed references.
    """

    def __init__(
        self,
        codec: LatentCodec,
        generator: Generator,
        image_size: int,
        sampling: torch.Generator | None = None,
        refiner: Refiner | None = None,
    ) -> None:
        self.codec, self.generator, self.image_size, self.sampling = codec, generator, image_size, sampling
        self.refiner = refiner
        one_by_one = codec.device.type == "cpu"
        self._kept_masked, self._kept_whole = LatentCache(one_by_one), LatentCache(one_by_one)

    @property
    def fine_size(self) -> int:
        """Side in pixels of crops with composed references, and of the faces generated from them."""
        return self.refiner.config.size if self.refiner else self.image_size

    def __call__(
        self,
        faces: UInt8[Tensor, "b 3 p p"],
        depths: UInt8[Tensor, "b 1 s s"],
        audio: Float[Tensor, "b n d"],
        references: Float[Tensor, "b c h w"] | None = None,
        composed: UInt8[Tensor, "b 3 p p"] | None = None,
        mouths: UInt8[Tensor, "b 1 p p"] | None = None,
    ) -> list[GeneratedFace]:
        """The generated faces.

        faces: of ``image_size``, or of ``fine_size`` with ``composed``, the composed references, and ``mouths``, 1
        inside the lips. depths: 0 without depth. references: latents of reference frames; without either a frame is its
        own reference.
        """
        if composed is not None:
            references = self.encode_references(composed)
        latents = self.generate(self.encode(faces, depths, references), audio)
        return self.decode(latents, composed, depths, mouths)

    @torch.inference_mode()
    def encode(
        self,
        faces: UInt8[Tensor, "b 3 p p"],
        depths: UInt8[Tensor, "b 1 s s"],
        references: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b i h w"]:
        """The masked, reference and depth latents; without ``references`` a frame is its own reference."""
        if self.sampling is not None:  # every frame has samples of its own
            images = self._resized(faces)
            if references is None:
                return self.codec.generator_input(images, images, depths, self.sampling)
            masked = self.codec.encode_masked(images, self.sampling)
            return torch.cat((masked, references, self.codec.encode_depth(depths, self.sampling)), dim=1)
        masked = self._kept_masked(faces, lambda missing: self.codec.encode_masked(self._resized(missing)))
        if references is None:
            references = self._kept_whole(faces, lambda missing: self.codec.encode(self._resized(missing)))
        return torch.cat((masked, references, self.codec.encode_depth(depths)), dim=1)

    def _resized(self, faces: UInt8[Tensor, "b 3 p p"]) -> Float[Tensor, "b 3 s s"]:
        return resize_images(to_signed(faces), self.image_size)

    @torch.inference_mode()
    def encode_references(self, faces: UInt8[Tensor, "k 3 p p"]) -> Float[Tensor, "k c h w"]:
        """Latents of reference crops."""
        return self.codec.encode(resize_images(to_signed(faces), self.image_size), self.sampling)

    @torch.inference_mode()
    def generate(self, latents: Float[Tensor, "b i h w"], audio: Float[Tensor, "b n d"]) -> Float[Tensor, "b c h w"]:
        """Latents of the new faces."""
        weight = next(self.generator.parameters())
        return self.generator(latents.to(weight), audio.to(weight)).float()

    @torch.inference_mode()
    def decode(
        self,
        latents: Float[Tensor, "b c h w"],
        composed: UInt8[Tensor, "b 3 p p"] | None = None,
        depths: UInt8[Tensor, "b 1 s s"] | None = None,
        mouths: UInt8[Tensor, "b 1 p p"] | None = None,
    ) -> list[GeneratedFace]:
        """The generated faces: the refiner's corrections of the composed references, or else the VAE's images."""
        parts = latents.split(self.codec.n_at_once or len(latents))
        images = torch.cat([self.codec.decode(part) for part in parts])
        if self.refiner is None or composed is None or depths is None or mouths is None:
            return [GeneratedFace(image) for image in to_bytes(images).permute(0, 2, 3, 1).cpu().numpy()]
        references = to_signed(composed.to(images.device))
        change = self.refiner.correct(images, references, to_signed(depths.to(images.device)), mouths.to(images.device))
        refined = to_bytes(references + change).permute(0, 2, 3, 1).cpu().numpy()
        corrections = (127.5 * change.float()).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return list(map(GeneratedFace, refined, corrections))


def load_talking_face(
    unet_dir: Path,
    vae_dir: Path,
    whisper_path: Path | None,
    image_size: int,
    device: torch.device,
    dtype: torch.dtype,
    sampling: torch.Generator | None = None,
    refiner_dir: Path | None = None,
    tiny_vae: bool = False,
) -> tuple[TalkingFace, WhisperEncoder | SpeechEncoder]:
    """Open the networks of stage 3. whisper_path: None for the speech encoder.

    Raises BadInput if they do not belong together or to ``image_size``."""
    if device.type == "cpu":
        keep_freed_memory()
    encoder = load_audio_encoder(whisper_path, device)
    codec = load_tiny_or_full(vae_dir, tiny_vae, device, dtype)
    generator = Generator.load(unet_dir, device, dtype)
    advice = "choose weights that were trained together"
    n_latents = N_INPUT_IMAGES * codec.channels
    config: Any = generator.unet.config
    if (config.in_channels, config.out_channels) != (n_latents, codec.channels):
        expected = f"{n_latents} latent channels in and {codec.channels} out, as the VAE {vae_dir} gives them"
        raise BadInput(
            "generator for another VAE", unet_dir, expected, f"{config.in_channels} and {config.out_channels}", advice
        )
    if generator.audio_channels != encoder.width:
        expected = f"states of {encoder.width} numbers, as {whisper_path or 'the speech encoder'} gives them"
        raise BadInput("generator for another audio encoder", unet_dir, expected, str(generator.audio_channels), advice)
    if image_size < 2 * codec.factor or image_size % codec.factor:
        expected = f"a multiple of {codec.factor}, at least {2 * codec.factor}"
        raise BadInput("image size does not fit the VAE", None, expected, str(image_size), "choose another --img_size")
    refiner = Refiner.load(refiner_dir, device, dtype) if refiner_dir else None
    return TalkingFace(codec, generator, image_size, sampling, refiner), encoder


def talking_frames(
    sources: Iterable[SourceFrame],
    windows: Iterable[Float[Tensor, "b n d"]],
    talking_face: TalkingFace,
    parse: Parser | None = None,
    batch_size: int = 8,
    faithful: bool = False,
    references: UInt8[Tensor, "k 3 r r"] | None = None,
) -> Iterator[TalkingFrame]:
    """Every frame with its new mouth, in order.

    windows: one batch of ``batch_size`` windows (the last may be smaller) per batch of frames. parse: face parsing for
    the blending mask; None: the mask follows from the landmarks. faithful: see prepare_crop and paste. references:
    crops of the reference frames, see SourceFrame. Decoding, networks and pasting overlap; one batch per worker of
    generate_batches is held, and about four more.
    """
    sizes = (talking_face.image_size, talking_face.fine_size)
    prepared = run_ahead(prepare_batches(sources, sizes, batch_size, faithful))
    for batch, faces in generate_batches(prepared, windows, talking_face, references):
        generated = iter(zip(batch.faces, faces, strict=True))
        for source in batch.sources:
            if source.face is None:
                yield TalkingFrame(source, source.image)
            else:
                yield TalkingFrame(source, *paste(source, *next(generated), parse, faithful))


def generate_batches(
    batches: Iterable[Batch],
    windows: Iterable[Float[Tensor, "b n d"]],
    talking_face: TalkingFace,
    references: UInt8[Tensor, "k 3 r r"] | None = None,
) -> Iterator[tuple[Batch, Sequence[GeneratedFace]]]:
    """Each batch with its new faces, in order.

    A CPU generates several batches at once, each on its share of the threads: the networks' layers are too small for
    many threads. With ``sampling``, batches run one by one, so that samples are the same in every run.
    """
    latents = None if references is None else talking_face.encode_references(references)

    def generate(item: tuple[Batch, Float[Tensor, "b n d"]]) -> tuple[Batch, Sequence[GeneratedFace]]:
        return item[0], generate_batch(*item, talking_face, latents)

    items = zip(batches, windows, strict=True)
    can_share = talking_face.codec.device.type == "cpu" and talking_face.sampling is None
    with shared_threads(MOST_WORKERS if can_share else 1) as n_workers:
        yield from map_ahead(generate, items, n_workers) if n_workers > 1 else run_ahead(map(generate, items))


def generate_batch(
    batch: Batch,
    audio: Float[Tensor, "b n d"],
    talking_face: TalkingFace,
    references: Float[Tensor, "k c h w"] | None = None,
) -> Sequence[GeneratedFace]:
    """New faces of the batch's frames with a face. references: latents of reference frames, unless composed."""
    if not batch.rows:
        return []
    crops, depths = stack_images([face.crop for face in batch.faces]), stack_gray([face.depth for face in batch.faces])
    latents = None if references is None else references[[batch.sources[row].reference for row in batch.rows]]
    composed = [face.composed for face in batch.faces if face.composed is not None]
    mouths = [face.mouth for face in batch.faces if face.mouth is not None]
    refining = (stack_images(composed), stack_gray(mouths)) if composed else ()
    return talking_face(crops, depths, audio[batch.rows], latents, *refining)
