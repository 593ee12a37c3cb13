from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.training_data import write_clip
from utils.core.errors import BadInput
from utils.data.clips import clip_names, open_clip, open_clips
from utils.results.store import face_path


def test_open_clip(tmp_path):
    clip = open_clip(write_clip(tmp_path, "a"))
    assert len(clip) == 12 and clip.valid.sum() == 11
    assert clip.faces[0].shape == (256, 256, 3) and clip.depths[0].shape == (256, 256)
    assert clip.audio.dtype == np.int16 and len(clip.audio) == 12 * 640


def test_landmarks_are_in_pixels_of_the_stored_crop(tmp_path):
    clip = open_clip(write_clip(tmp_path, "a"))  # its box is 512 x 128
    lips = clip.landmarks[0][61]
    assert lips[0] == pytest.approx(128 - 40, abs=0.1) and lips[1] == pytest.approx(190, abs=0.1)


def test_images_are_kept_in_memory_if_asked(tmp_path):
    folder = write_clip(tmp_path, "a")
    kept, read_again = open_clip(folder, in_memory=True), open_clip(folder)
    first = kept.faces[0]
    np.testing.assert_array_equal(first, read_again.faces[0])
    face_path(folder, 0).unlink()
    assert kept.faces[0] is first
    with pytest.raises(BadInput):
        read_again.faces[0]


def test_silent_clip(tmp_path):
    assert open_clip(write_clip(tmp_path, "a", has_audio=False)).audio is None


def test_names(tmp_path):
    write_clip(tmp_path, "b")
    write_clip(tmp_path, "a")
    (tmp_path / "notes").mkdir()
    assert clip_names(tmp_path) == ["a", "b"]
    assert [clip.name for clip in open_clips(tmp_path, ["b", "a"])] == ["b", "a"]
    with pytest.raises(BadInput, match=r"clip missing.*found c"):
        open_clips(tmp_path, ["a", "c"])


def test_incomplete_clips_are_named(tmp_path):
    with pytest.raises(BadInput, match="no training clips"):
        clip_names(tmp_path)
    folder = write_clip(tmp_path, "a")
    face_path(folder, 11).unlink()
    with pytest.raises(BadInput, match=r"training clip incomplete.*00000011\.jpg"):
        open_clip(folder)
    np.save(folder / "landmarks.npy", np.zeros((3, 468, 2), np.float32))
    with pytest.raises(BadInput, match=r"landmarks\.npy.*expected float \[12, 468, 2\]"):
        open_clip(folder)
