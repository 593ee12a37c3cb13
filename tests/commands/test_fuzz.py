"""Damaged and foreign input files of every kind: used, or refused in one line, within a time limit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from models.generation.face_crops import (
    choose_mouth_pictures,
    choose_reference_frames,
    prepare_batches,
    source_frames,
)
from models.generation.face_pasting import GeneratedFace, paste
from models.generation.generator import Generator
from models.generation.latent_codec import LatentCodec
from models.generation.refiner import Refiner, RefinerConfig
from models.training.generator_training_setup import GeneratorTrainingConfig
from models.training.motion_training_config import MotionTrainingConfig, check_config
from tests.helpers import damage, media, talking_clip
from tests.helpers.damage import damaged, examined
from utils.core.config import load_config
from utils.core.errors import BadInput, StageFailure
from utils.files.image_files import write_gray
from utils.media.video import probe_video
from utils.results import store
from utils.results.edit_check import count_frames, open_edit, require_rate

ROOT = Path(__file__).resolve().parents[2]
N_FRAMES = 4
BOX = (10, 5, 50, 45)
LOUD = 16_000 * N_FRAMES // 25
EDIT_ARRAYS = ("boxes", "landmarks", "source_landmarks", "coeffs", "frame_index", "valid", "strength")
CONFIGS: dict[str, type] = {
    "joygen.yaml": GeneratorTrainingConfig,
    "joygen_mini.yaml": GeneratorTrainingConfig,
    "audio2motion.yaml": MotionTrainingConfig,
    "audio2motion_mini.yaml": MotionTrainingConfig,
}


@pytest.fixture
def fresh(tmp_path) -> Callable[[], Path]:
    """Returns a new folder name for each example."""
    numbers = count()
    return lambda: tmp_path / str(next(numbers))


def accepts_or_refuses(use: Callable[[], object]) -> None:
    """Fail unless the call succeeds or raises a one-line error."""
    try:
        use()
    except (BadInput, StageFailure) as error:
        assert 0 < len(str(error)) < 2000
        assert "\n" not in str(error)


MOTION = np.linspace(-1, 1, 8 * 64, dtype=np.float32).reshape(8, 64)


@examined(200)
@given(content=damage.arrays(MOTION))
def test_motion_files(fresh, content):
    path = fresh().with_suffix(".npy")
    path.write_bytes(content)

    def use() -> None:
        motion = store.load_motion(path)
        assert motion.dtype == np.float32 and motion.ndim == 2 and motion.shape[1] == 64 and len(motion)
        assert np.isfinite(motion).all()

    accepts_or_refuses(use)


@pytest.fixture(scope="module")
def edited(tmp_path_factory) -> Path:
    """A clip and a stage-2 result for it."""
    folder = tmp_path_factory.mktemp("edited")
    clip = media.write_clip(folder / "clip.mp4", media.numbered_frames(N_FRAMES))
    outline = np.random.default_rng(0).uniform(0, 40, (N_FRAMES, 468, 2)).astype(np.float32)
    store.save_edit_arrays(
        folder / "edit",
        boxes=np.tile(BOX, (N_FRAMES, 1)),
        landmarks=outline,
        coeffs=np.zeros((N_FRAMES, 257)),
        frame_index=np.arange(N_FRAMES),
        valid=np.arange(N_FRAMES) != 2,
        source_landmarks=outline + 1,
        strength=np.linspace(1, 0.5, N_FRAMES),
    )
    for index in (0, 1, 3):
        write_gray(store.depth_path(folder / "edit", index), np.full((40, 40), 90, np.uint8))
    record = store.TrackRecord("clip.mp4", clip.stat().st_size, 64, 48, N_FRAMES, N_FRAMES, 3, "speech.npy", "mini")
    store.save_track_record(folder / "edit", record)
    return folder


@st.composite
def spoilt_file(draw: st.DrawFn, path: Path) -> bytes:
    """Altered content of a file of a stage-2 folder."""
    if path.suffix == ".npy":
        return draw(damage.arrays(np.load(path)))
    content = path.read_bytes()
    if path.suffix == ".png" or draw(st.integers(0, 4)) == 0:
        return draw(damaged(content))
    return json.dumps(draw(damage.spoilt_values(json.loads(content)))).encode()


@examined(150)
@given(data=st.data())
def test_folders_of_stage_2(edited, fresh, data):
    folder = fresh()
    shutil.copytree(edited / "edit", folder / "clip" / "speech")
    names = [*(f"{name}.npy" for name in EDIT_ARRAYS), store.TRACK_NAME, "depth/00000001.png"]
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
        (folder / "clip" / "speech" / name).write_bytes(data.draw(spoilt_file(edited / "edit" / name)))
    accepts_or_refuses(lambda: use_edit(edited / "clip.mp4", folder, data.draw(st.booleans())))


def use_edit(clip: Path, folder: Path, composed: bool) -> None:
    """Everything stage 3 does with stage 2's result, with the source face in place of the generated one."""
    video = probe_video(clip)
    edit = open_edit(store.edit_dir(folder, clip, Path("speech.wav")), video)
    require_rate(None, video, edit)
    n_frames = count_frames(edit, LOUD, faithful=False)
    assert 0 < n_frames <= len(edit)
    references, mouths = None, None
    if composed:
        mouths = choose_mouth_pictures(edit, clip, n_frames)
    elif edit.valid[:n_frames].any():
        references = choose_reference_frames(edit, clip, n_frames, 32)
    sources = source_frames(edit, clip, n_frames, True, None, references, mouths)
    for batch in prepare_batches(sources, (32, 32), 3):
        for row, face in zip(batch.rows, batch.faces, strict=True):
            source = batch.sources[row]
            generated = GeneratedFace(face.crop, np.zeros(face.crop.shape, np.float32) if composed else None)
            assert paste(source, face, generated)[0].shape == source.image.shape


@pytest.mark.parametrize("name", CONFIGS)
@examined(60)
@given(data=st.data())
def test_training_configs(fresh, name, data):
    path, text = fresh(), (ROOT / "config" / name).read_bytes()
    if data.draw(st.integers(0, 2)) == 0:
        path.write_bytes(data.draw(damaged(text)))
    else:
        path.write_text(yaml.safe_dump(data.draw(damage.spoilt_values(yaml.safe_load(text)))))

    def use() -> None:
        config: Any = load_config(CONFIGS[name], path)
        if isinstance(config, MotionTrainingConfig):
            check_config(config)
            assert np.isfinite([config.optimizer.rate(step) for step in (0, 1, config.max_steps)]).all()
            assert np.isfinite([config.sync.rate(step) for step in (0, 1, config.sync.max_steps)]).all()

    accepts_or_refuses(use)


NETWORKS: dict[str, Callable[[Path], object]] = {
    "unet": Generator.load,
    "vae": LatentCodec.load,
    "refiner": Refiner.load,
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    talking_clip.save_networks(folder)
    Refiner.create(RefinerConfig(32, (4, 8))).save(folder / "refiner")
    return folder


@pytest.mark.parametrize("name", NETWORKS)
@examined(40)
@given(data=st.data())
def test_configs_beside_weights(networks, fresh, name, data):
    folder = fresh()
    shutil.copytree(networks / name, folder, symlinks=True)
    path = folder / "config.json"
    if data.draw(st.integers(0, 4)) == 0:
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    else:
        path.write_text(json.dumps(data.draw(damage.spoilt_values(json.loads(path.read_text())))))
    accepts_or_refuses(lambda: NETWORKS[name](folder))
