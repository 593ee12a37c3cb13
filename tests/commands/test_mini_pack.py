"""The mini pack's networks on a real clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.generation.face_crops import (
    SourceFrame,
    choose_mouth_pictures,
    prepare_batches,
    source_frames,
)
from models.generation.talking_face import TalkingFace, generate_batch, load_talking_face
from tests.helpers.talking_clip import CLIP_NAME, SPEECH_NAME, fill_folder
from utils.media.audio import load_waveform
from utils.media.windows import stream_windows
from utils.results import store
from utils.weights import packs

N_FRAMES = 4
LEAST_PSNR = 45.0  # dB


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    fill_folder(folder)
    return folder


@pytest.fixture(scope="module")
def inputs(folder) -> list[SourceFrame]:
    """The first frames with a face."""
    edit = store.load_edit(store.edit_dir(folder / "edit", folder / CLIP_NAME, folder / SPEECH_NAME))
    mouths = choose_mouth_pictures(edit, folder / CLIP_NAME, len(edit))
    sources = source_frames(edit, folder / CLIP_NAME, len(edit), True, mouths=mouths)
    return [source for source in sources if source.face is not None][:N_FRAMES]


def load(dtype: torch.dtype):
    pack = packs.resolve_pack()
    paths = (pack.unet, pack.vae, pack.whisper)
    return load_talking_face(*paths, pack.image_size, torch.device("cpu"), dtype, None, pack.refiner)


def generate(networks: TalkingFace, inputs, windows: torch.Tensor) -> np.ndarray:
    sizes = (networks.image_size, networks.fine_size)
    (batch,) = prepare_batches(inputs, sizes, N_FRAMES)
    return np.stack([face.image for face in generate_batch(batch, windows, networks)]).astype(float)


@pytest.fixture(scope="module")
def exact():
    return load(torch.float32)


@pytest.fixture(scope="module")
def windows(folder, exact) -> torch.Tensor:
    states = exact[1].encode_segments(load_waveform(folder / SPEECH_NAME))
    return next(iter(stream_windows(states, N_FRAMES, 25, N_FRAMES)))


def test_bfloat16_agrees_with_float32(inputs, exact, windows):
    """Measured: 58.5 dB."""
    faces = generate(exact[0], inputs, windows)
    error = faces - generate(load(torch.bfloat16)[0], inputs, windows)
    assert faces.std() > 10
    assert (error != 0).any()
    assert 10 * np.log10(255**2 / np.square(error).mean()) > LEAST_PSNR


def test_sound_and_depth_move_the_generated_mouth(inputs, exact, windows):
    faces = generate(exact[0], inputs, windows)
    without_sound = generate(exact[0], inputs, torch.zeros_like(windows))
    flat = [replace(source, face=replace(source.face, depth=None)) for source in inputs]
    without_depth = generate(exact[0], flat, windows)
    assert np.abs(faces - without_sound).max() > 2
    assert np.abs(faces - without_depth).max() > 3  # the composed reference has the new shape already
