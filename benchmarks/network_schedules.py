"""One row of benchmarks/bench_networks.py, run in its own process: stage 3's networks on a few frames of a clip.

python -m benchmarks.network_schedules JSON
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.audio.speech_encoder import SpeechEncoder
from models.audio.whisper_encoder import WhisperEncoder
from models.generation.face_crops import (
    References,
    SourceFrame,
    choose_mouth_pictures,
    choose_reference_frames,
    prepare_batches,
    prepare_crop,
    source_frames,
)
from models.generation.face_pasting import GeneratedFace, paste
from models.generation.generator import Generator, build_unet
from models.generation.latent_codec import build_vae, current_name, hide_lower_half, hide_upper_half
from models.generation.talking_face import TalkingFace, load_talking_face
from models.layers.model_config import read_model_config
from utils.core import cli
from utils.core.streaming import MOST_WORKERS, batched, map_ahead, shared_threads
from utils.imaging.face_warp import MouthPicture
from utils.imaging.images import stack_gray, stack_images, to_bytes, to_signed
from utils.media.windows import WINDOW_ROWS
from utils.results.store import EditResult, load_edit
from utils.weights.checkpoints import load_strict, read_weights, weights_file

T = TypeVar("T")
MATMUL_SIDE, MATMUL_RUNS = 2048, 5
REFERENCE = "reference-schedule"


@dataclass(frozen=True)
class Job:
    """Networks, frames and schedule of a row.

    whisper: "" for the speech encoder; refiner: "" for none; started: time.time() of the request.
    """

    clip: str
    edit_dir: str
    n_frames: int
    gpu_id: int
    schedule: str
    unet: str
    vae: str
    whisper: str
    refiner: str
    image_size: int
    started: float


@dataclass(frozen=True)
class Measured:
    """Seconds of each step, summed over frames and workers, of the whole run, and to the first batch.

    flops: of all frames; peak_rate: FLOP/s of a matrix product on all threads.
    """

    encode: float
    unet: float
    decode: float
    rest: float
    n_frames: int
    n_workers: int
    seconds: float
    flops: float
    peak_rate: float
    first: float


class Clock:
    """Sums the seconds of steps by name; synchronises with the accelerator."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict.fromkeys(("encode", "unet", "decode", "rest"), 0.0)
        self._lock = Lock()

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        with self._lock:
            self.seconds[name] += time.perf_counter() - start
        return result


def measure(job: Job) -> Measured:
    """Generate the frames twice: by one worker to warm up and count FLOPs, then for the time."""
    device = cli.resolve_device(job.gpu_id)
    dtype = torch.float32 if job.schedule == REFERENCE else getattr(torch, job.schedule)
    edit = load_edit(Path(job.edit_dir))
    schedule = (Upstream if job.schedule == REFERENCE else Ours)(job, edit, device, dtype)
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        schedule.generate(Clock(device), 1)
    first = time.time() - job.started
    clock = Clock(device)
    with shared_threads(schedule.most_workers) as n_workers:
        start = time.perf_counter()
        schedule.generate(clock, n_workers)
        seconds = time.perf_counter() - start
    counts = {"n_frames": len(schedule.sources), "n_workers": n_workers, "flops": counter.get_total_flops()}
    return Measured(**clock.seconds, **counts, seconds=seconds, peak_rate=matmul_rate(device, dtype), first=first)


class Ours:
    """Stage 3's schedule: one batch per worker. The references of the clip are encoded before."""

    def __init__(self, job: Job, edit: EditResult, device: torch.device, dtype: torch.dtype) -> None:
        refiner = Path(job.refiner) if job.refiner else None
        paths = (Path(job.unet), Path(job.vae), Path(job.whisper) if job.whisper else None)
        self.networks, encoder = load_talking_face(*paths, job.image_size, device, dtype, None, refiner)
        clip, references, mouths = Path(job.clip), None, None
        if refiner:
            mouths = choose_mouth_pictures(edit, clip, len(edit))
        else:
            references = choose_reference_frames(edit, clip, len(edit), job.image_size)
        self.latents = None if references is None else self.networks.encode_references(references.faces)
        self.most_workers = MOST_WORKERS if device.type == "cpu" else 1
        n_batches = min(torch.get_num_threads(), self.most_workers)
        self.sources = faces_of(job, edit, n_batches, references, mouths)
        self.audio, self.batch_size = windows_for(encoder, job.n_frames), job.n_frames

    def generate(self, clock: Clock, n_workers: int) -> None:
        networks = self.networks
        fresh = TalkingFace(networks.codec, networks.generator, networks.image_size, None, networks.refiner)
        run, batches = partial(self._generate_batch, clock, fresh), batched(self.sources, self.batch_size)
        # FLOPs are counted in this thread alone
        for _ in map_ahead(run, batches, n_workers) if n_workers > 1 else map(run, batches):
            pass

    @torch.inference_mode()
    def _generate_batch(self, clock: Clock, fresh: TalkingFace, sources: list[SourceFrame]) -> None:
        sizes = (fresh.image_size, fresh.fine_size)
        (batch,) = clock("rest", lambda: list(prepare_batches(sources, sizes, len(sources))))
        crops = stack_images([face.crop for face in batch.faces])
        depths = stack_gray([face.depth for face in batch.faces])
        composed = [face.composed for face in batch.faces if face.composed is not None]
        composed_images = stack_images(composed) if composed else None
        mouths = stack_gray([face.mouth for face in batch.faces]) if composed else None
        latents = clock(
            "encode", lambda: fresh.encode(crops, depths, self._reference_latents(fresh, sources, composed_images))
        )
        generated = clock("unet", lambda: fresh.generate(latents, self.audio[: len(sources)]))
        faces = clock("decode", lambda: fresh.decode(generated, composed_images, depths, mouths))
        clock("rest", lambda: [paste(*parts) for parts in zip(sources, batch.faces, faces, strict=True)])

    def _reference_latents(
        self, networks: TalkingFace, sources: list[SourceFrame], composed: Tensor | None
    ) -> Tensor | None:
        if composed is not None:
            return networks.encode_references(composed)
        return None if self.latents is None else self.latents[[source.reference for source in sources]]


class Upstream:
    """The reference's schedule, in one batch.

    JPEG files, one image per encode, sampled latents, float32, default memory layout.
    """

    def __init__(self, job: Job, edit: EditResult, device: torch.device, dtype: torch.dtype) -> None:
        self.vae = self._load(build_vae, Path(job.vae), current_name).to(device, dtype)
        self.unet = self._load(build_unet, Path(job.unet), lambda key: key.removeprefix("module.")).to(device, dtype)
        self.generator = Generator(self.unet, lean=False).eval()
        self.scale = float(self.vae.config.scaling_factor)  # type: ignore[union-attr, arg-type]
        self.device, self.image_size = device, job.image_size
        self.most_workers, self.sources = 1, faces_of(job, edit, 1)
        self.audio = windows_for(WhisperEncoder.load(Path(job.whisper), device), len(self.sources)).to(device)

    @staticmethod
    def _load(build: Callable[[dict[str, Any]], nn.Module], folder: Path, rename: Callable[[str], str]) -> nn.Module:
        network, path = build(read_model_config(folder / "config.json")), weights_file(folder)
        load_strict(network, read_weights(path), path, rename=rename)
        return network.float().eval().requires_grad_(False)

    @torch.inference_mode()
    def generate(self, clock: Clock, n_workers: int) -> None:  # noqa: ARG002  # one worker alone
        latents, crops = [], []
        for source in self.sources:
            prepared = clock(
                "rest", lambda source=source: prepare_crop(source.image, source.face, self.image_size, True)
            )
            crops.append(prepared)
            crop, depth = to_signed(stack_images([prepared.crop])), to_signed(stack_gray([prepared.depth]))
            parts = (hide_lower_half(crop), crop, hide_upper_half(depth.expand(-1, 3, -1, -1)))
            latents.append(
                clock("encode", lambda parts=parts: torch.cat([self._encode(part) for part in parts], dim=1))
            )
        generated = clock("unet", lambda: self.generator(torch.cat(latents), self.audio))
        images = clock("decode", lambda: to_bytes(self.vae.decode(generated / self.scale).sample))
        shown = images.permute(0, 2, 3, 1).cpu().numpy()
        pasted = zip(self.sources, crops, map(GeneratedFace, shown), strict=True)
        clock("rest", lambda: [paste(*parts, None, True) for parts in pasted])

    def _encode(self, image: Tensor) -> Tensor:
        return self.vae.encode(image.to(self.device)).latent_dist.sample() * self.scale


def faces_of(
    job: Job,
    edit: EditResult,
    n_batches: int,
    references: References | None = None,
    mouths: Sequence[tuple[MouthPicture, ...]] | None = None,
) -> list[SourceFrame]:
    """The first frames with a face."""
    chosen = np.flatnonzero(edit.valid)[: job.n_frames * n_batches].tolist()
    parts = [range(index, index + 1) for index in chosen]
    return list(source_frames(edit, Path(job.clip), len(edit), True, parts, references, mouths))


def windows_for(encoder: WhisperEncoder | SpeechEncoder, n_frames: int) -> Tensor:
    return torch.zeros(n_frames, WINDOW_ROWS * encoder.n_states, encoder.width)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two square matrices, the best of a few."""
    one, other = (torch.randn(MATMUL_SIDE, MATMUL_SIDE, device=device).to(dtype) for _ in range(2))
    clocks = [Clock(device) for _ in range(MATMUL_RUNS)]
    for clock in clocks:
        clock("rest", lambda: one @ other)
    return 2 * MATMUL_SIDE**3 / min(clock.seconds["rest"] for clock in clocks)


def main() -> None:
    print(json.dumps(asdict(measure(Job(**json.loads(sys.argv[1]))))))


if __name__ == "__main__":
    cli.run(lambda _: main())
