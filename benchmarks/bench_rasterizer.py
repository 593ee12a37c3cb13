"""Frames per second of the geometry on one core: rendering depth images and fitting the face model to landmarks.

    OMP_NUM_THREADS=1 python -m benchmarks.bench_rasterizer

Prints one Markdown table; with a CUDA device it has rows for torch there, and for nvdiffrast if that is installed. The
mesh starts on the CPU, so those rows include the transfers of mesh and image. The meshes are synthetic, with as many
vertices as the mini pack's face and (within 12) the BFM's, and fill about a third of the 224 px image, like a face.
"256 px box" adds the 8-bit image and its way back to a 256 px box of a 720p frame, as stage 2 does per frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from models.face3d.face_model import ANGLES, EXPRESSION, IDENTITY, FaceModel
from models.face3d.landmark_fit import FitSettings, fit_landmarks
from models.face3d.rasterizer import DepthRenderer, NumbaRenderer, choose_rasterizer, render_depth
from models.face3d.rasterizer_torch import TorchRenderer
from utils.core import cli
from utils.core.config import Amount
from utils.core.options import Options, option, parse_options
from utils.core.types import N_COEFFS, N_LANDMARKS, Camera
from utils.imaging.geometry import Alignment
from utils.imaging.images import depth_to_uint8

MESHES = {"mini": (18, 26), "BFM": (189, 189)}  # columns, rows: 468 and 35721 vertices
WARM_UP_RUNS = 3
FRAME = Alignment(1280, 720, 0.6, (640.0, 360.0))
BOX = np.array([512, 232, 768, 488])
N_FIT_FRAMES = 250  # ten seconds


@dataclass(frozen=True, kw_only=True)
class RasterizerOptions(Options):
    """Length of the measurement."""

    seconds: Amount = option(2.0, help="seconds that each row is repeated")


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(RasterizerOptions, "Benchmark the rasteriser and the landmark fit on one core.", arguments)
    torch.set_num_threads(1)
    print("| work | vertices | triangles | frames/s |")
    print("|---|---|---|---|")
    for name, (columns, rows) in MESHES.items():
        vertices, triangles = half_ellipsoid(columns, rows)
        size = f"{len(vertices)} | {len(triangles)}"
        mesh = torch.from_numpy(vertices), torch.from_numpy(triangles), Camera()
        for renderer in renderers():
            rendered = rate(lambda r=renderer, m=mesh: r(*m), options.seconds)
            print(f"| depth at 224², {name}: {renderer.name} | {size} | {rendered:.0f} |")
        to_box = rate(lambda v=vertices, t=triangles: depth_in_box(v, t), options.seconds)
        print(f"| depth in a 256 px box, {name} | {size} | {to_box:.0f} |")
    model = random_face_model()
    landmarks = talking_landmarks(model)
    valid = np.ones(len(landmarks), bool)
    for name, settings in (("", FitSettings()), (", rotation smoothed", FitSettings(rotation_sigma=1.0))):
        clips = rate(lambda s=settings: fit_landmarks(model, landmarks, valid, s), options.seconds)
        print(f"| landmark fit with identity, 10 s{name} | {N_LANDMARKS} | – | {clips * len(landmarks):.0f} |")


def renderers() -> list[DepthRenderer]:
    """Every rasteriser that this machine can run."""
    found: list[DepthRenderer] = [NumbaRenderer(), TorchRenderer(torch.device("cpu"))]
    if torch.cuda.is_available():
        device = torch.device("cuda")
        found.append(TorchRenderer(device))
        best = choose_rasterizer(device)
        if best.note is None:
            found.append(best)
    return found


def rate(work: Callable[[], object], seconds: float) -> float:
    """Runs per second, after compiling and warming up."""
    for _ in range(WARM_UP_RUNS):
        work()
    runs, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or runs == 0:
        work()
        runs += 1
    return runs / elapsed


def half_ellipsoid(columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The front of an ellipsoid the size of a head, in camera space: float32 [columns·rows, 3], int32 [F, 3]."""
    longitude, latitude = np.meshgrid(np.linspace(-1.5, 1.5, columns), np.linspace(-1.5, 1.5, rows))
    x, y = 0.7 * np.sin(longitude) * np.cos(latitude), 0.95 * np.sin(latitude)
    z = 10 - 0.8 * np.cos(longitude) * np.cos(latitude)
    corner = np.arange(columns * rows).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]))
    triangles = np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])
    return np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float32), triangles.astype(np.int32)


def depth_in_box(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    return FRAME.paste_to_box(depth_to_uint8(render_depth(vertices, triangles)), BOX)


def random_face_model() -> FaceModel:
    """A half ellipsoid with random bases, of the mini pack's size."""
    vertices, triangles = half_ellipsoid(*MESHES["mini"])
    generator = np.random.default_rng(0)
    return FaceModel(
        {
            "meanshape": (vertices * [1, 1, -1]).astype(np.float32),
            "idBase": generator.normal(scale=0.005, size=(vertices.size, 80)).astype(np.float32),
            "exBase": generator.normal(scale=0.005, size=(vertices.size, 64)).astype(np.float32),
            "tri": triangles,
            "landmark_index": np.arange(N_LANDMARKS),
            "alignment_points": np.zeros((5, 3), np.float32),
        }
    )


def talking_landmarks(model: FaceModel) -> np.ndarray:
    """float32 [N_FIT_FRAMES, 468, 2]: one person with random expressions and poses."""
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.zeros(N_FIT_FRAMES, N_COEFFS)
    coefficients[:, IDENTITY] = torch.randn(80, generator=generator)
    coefficients[:, EXPRESSION] = torch.randn(N_FIT_FRAMES, 64, generator=generator)
    coefficients[:, ANGLES] = 0.2 * torch.randn(N_FIT_FRAMES, 3, generator=generator)
    return model.landmarks468(coefficients).numpy()


if __name__ == "__main__":
    cli.run(main)
