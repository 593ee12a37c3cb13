from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.training_data import SIZE, write_clip
from utils.core.errors import BadInput
from utils.data.augment import NO_AUGMENTATION, Augmentation
from utils.data.clips import FrameSequence, open_clip, open_clips
from utils.data.dataset import (
    MIN_REFERENCE_DISTANCE,
    DatasetConfig,
    TrainingBatches,
    choose_mouth,
    choose_reference,
    make_item,
    make_reference,
    split_clips,
)
from utils.data.segments import SegmentSource


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    for name in ("a", "b", "c"):
        write_clip(directory, name, has_audio=name != "c")
    return directory


@pytest.fixture(scope="module")
def clips(data_dir):
    return open_clips(data_dir, ["a", "b", "c"], in_memory=True)


@pytest.fixture
def config(data_dir):
    return DatasetConfig(data_dir, img_size=SIZE, batch_size=4, frames_per_clip=2)


def batches(clips, config, seed=0, n_batches=50) -> TrainingBatches:
    def log_mel(wave):
        return torch.from_numpy(wave[: len(wave) // 160 * 160].reshape(-1, 160)[:, :3].T.copy())

    return TrainingBatches(clips, config, SegmentSource(log_mel, 3, 20, 0.0, True), n_batches, seed)


def test_shapes(clips, config):
    batch = batches(clips, config)[0]
    assert batch.targets.shape == batch.references.shape == (4, 3, SIZE, SIZE)
    assert batch.depths.shape == batch.mouths.shape == (4, 1, SIZE, SIZE)
    assert batch.targets.dtype == batch.depths.dtype == torch.uint8
    assert batch.log_mel.shape == (2, 3, 40) and batch.rows.shape == (4, 10)
    assert len(batch.names) == 4 and batch.names[0].split("/")[0] == batch.names[1].split("/")[0]


def test_a_batch_depends_on_seed_and_number_alone(clips, config):
    first, second = batches(clips, config), batches(clips, config)
    second[0]
    for key, value in vars(first[7]).items():
        same = getattr(second[7], key)
        assert torch.equal(value, same) if isinstance(value, torch.Tensor) else value == same
    assert not torch.equal(first[7].targets, first[8].targets)
    assert first[7].names != batches(clips, config, seed=1)[7].names


def test_workers_give_the_same_batches(clips, config):
    data = batches(clips, config, n_batches=3)
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    loaded = list(loader)
    assert len(loaded) == 3
    for index, batch in enumerate(loaded):
        assert torch.equal(batch.targets, data[index].targets) and batch.names == data[index].names


def test_every_usable_frame_and_no_other_is_learned(clips, config):
    data = batches(clips, config, n_batches=100)
    seen = {name for index in range(100) for name in data[index].names}
    assert seen == {f"{clip}/{frame}" for clip in "abc" for frame in range(12) if frame != 3}


def test_sound_is_missing_only_where_the_clip_has_none(clips, config):
    data = batches(clips, config)
    for index in range(10):
        batch = data[index]
        is_silent = [name.startswith("c") for name in batch.names[::2]]
        assert batch.has_audio.tolist() == [not silent for silent in is_silent]
        assert not batch.log_mel[~batch.has_audio].any()


def test_references_are_five_frames_away():
    valid = np.ones(20, bool)
    valid[[0, 19]] = False
    rng = np.random.default_rng(0)
    for frame in range(1, 19):
        chosen = {choose_reference(valid, frame, rng) for _ in range(100)}
        assert chosen == {other for other in range(1, 19) if abs(other - frame) >= 5}


def test_reference_in_a_short_clip_is_the_farthest():
    assert choose_reference(np.array([True] * 4), 1, np.random.default_rng(0)) == 3


def test_items_without_augmentation(data_dir, config):
    clip = open_clip(data_dir / "a")
    plain = replace(config, img_size=256, augment=NO_AUGMENTATION)
    target, reference, depth, mouth = make_item(clip, 6, plain, np.random.default_rng(0))
    assert np.array_equal(target, clip.faces[6])
    assert any(np.array_equal(reference, clip.faces[i]) for i in (0, 1, 11))
    assert set(np.unique(mouth)) == {0, 1}
    assert np.array_equal(depth, clip.depths[6] * mouth) and depth.any()


def test_place_is_shared_and_colour_too(data_dir, config):
    """The mouth of target, depth and mask stays in one place; target and reference change colour alike."""
    clip = open_clip(data_dir / "a")
    augment = Augmentation(crop_scale=(0.6, 0.7), color_jitter=0.4, flip=0.5, depth=1.0, depth_shift=0.0)
    rng = np.random.default_rng(1)
    for _ in range(10):
        target, reference, depth, mouth = make_item(clip, 6, replace(config, img_size=128, augment=augment), rng)
        is_mouth = np.abs(target.astype(int) - target[-1, 0]).max(axis=2) > 20
        centers = [np.argwhere(part).mean(axis=0) for part in (mouth, depth, is_mouth)]
        assert np.ptp(centers, axis=0).max() < 3
        ground = target[100:, :3].mean(axis=(0, 1)), reference[100:, :3].mean(axis=(0, 1))
        np.testing.assert_allclose(*ground, atol=4)


def test_depth_reaches_the_batch(clips, config):
    """Upstream's depth image is always black in training; here about every second sample shows it."""
    data = batches(clips, config, n_batches=60)
    is_shown = np.array([depth.any().item() for index in range(60) for depth in data[index].depths])
    assert 0.4 < is_shown.mean() < 0.6
    always = replace(config, augment=replace(config.augment, depth=1.0))
    depths = batches(clips, always)[0].depths.float()
    assert depths.amax(dim=(1, 2, 3)).min() > 150 and 1 < depths.mean() < 60


def test_depth_is_shifted_up_to_two_percent(data_dir, config):
    clip = open_clip(data_dir / "a")
    augment = replace(NO_AUGMENTATION, depth_shift=0.02)
    rng = np.random.default_rng(0)
    offsets = []
    for _ in range(40):
        _, _, depth, mouth = make_item(clip, 6, replace(config, img_size=256, augment=augment), rng)
        offsets.append(np.argwhere(depth).mean(axis=0) - np.argwhere(mouth).mean(axis=0))
    largest = np.abs(offsets).max(axis=0)
    assert (largest > 3).all() and (largest < 6).all()


def test_lists_of_clips(data_dir, config, tmp_path):
    (tmp_path / "val.txt").write_text("# held out\nb\n\n")
    (tmp_path / "train.txt").write_text("c\na\n")
    held_out = replace(config, val_file=tmp_path / "val.txt")
    assert split_clips(config) == (["a", "b", "c"], [])
    assert split_clips(held_out) == (["a", "c"], ["b"])
    assert split_clips(replace(held_out, train_file=tmp_path / "train.txt")) == (["c", "a"], ["b"])
    with pytest.raises(BadInput, match=r"in both lists.*found b"):
        split_clips(replace(held_out, train_file=tmp_path / "val.txt"))
    with pytest.raises(BadInput, match="list of clips missing"):
        split_clips(replace(config, val_file=tmp_path / "none.txt"))


def test_bad_data_is_named(data_dir, config, tmp_path):
    short = open_clip(write_clip(tmp_path, "short", n_frames=7))  # one of them without a face
    with pytest.raises(BadInput, match="no usable clip"):
        batches([short], config)
    with pytest.raises(BadInput, match=r"multiple of frames_per_clip = 3, found 4"):
        batches(open_clips(data_dir, ["a"]), replace(config, frames_per_clip=3))


def test_a_composed_reference_never_shows_the_mouth_to_draw(clips, config):
    shown = []
    faces = FrameSequence(lambda index: shown.append(index) or clips[0].faces[index], in_memory=False)
    watched = replace(clips[0], faces=faces)
    composed = replace(config, reference="composed", augment=Augmentation(same_frame=0.5))
    rng, n_same = np.random.default_rng(0), 0
    for frame in np.flatnonzero(watched.valid).tolist() * 8:
        shown.clear()
        reference = make_reference(watched, frame, composed, rng)
        assert reference.shape == (256, 256, 3)
        *mouths, around = shown
        n_same += around == frame
        assert 1 <= len(mouths) <= 2
        assert all(abs(mouth - frame) >= MIN_REFERENCE_DISTANCE for mouth in mouths)
    assert 0 < n_same < 8 * watched.valid.sum()


def test_a_similar_mouth_is_shown_more_often_than_chance(clips):
    clip, frame, rng = clips[0], int(np.flatnonzero(clips[0].valid)[0]), np.random.default_rng(0)
    usable = [index for index in np.flatnonzero(clip.valid) if abs(index - frame) >= MIN_REFERENCE_DISTANCE]
    distances = np.square(clip.mouths - clip.mouths[frame]).sum(axis=1)
    chosen = [choose_mouth(clip, frame, rng) for _ in range(40)]
    assert set(chosen) <= set(usable)
    assert np.mean([distances[index] for index in chosen]) < np.mean([distances[index] for index in usable])
