"""Sound of an excerpt in the middle of a file, and sound that is read block by block."""

from __future__ import annotations

import numpy as np
import pytest

from models.audio.audio_features import pitch_contour
from models.tracking.video_survey import BLOCK_STEPS, step_levels, survey_sound
from tests.helpers import media
from utils.core.types import FEATURE_RATE, SAMPLES_PER_FEATURE
from utils.media.audio import load_waveform, waveform_blocks
from utils.media.video import VideoWriter

RATE = 48_000
CLICKS = [0.3, 1.1, 2.6, 3.3, 3.9, 5.3]


@pytest.mark.parametrize(
    ("name", "sound_start"), [("a.mp4", 0.0), ("a.mp4", 0.4), ("a.mkv", 0.4), ("a.ts", 0.4), ("a.avi", 0.0)]
)
def test_the_sound_of_an_excerpt_stays_in_time(tmp_path, name, sound_start):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    frames = media.numbered_frames(150)
    sound = media.clicks(5.6, CLICKS)
    source = media.write_clip(tmp_path / name, frames, sound=sound, sound_start=sound_start, codec=codec)
    for start in (0.0, 0.2, 2.4, 4.0):
        with VideoWriter(tmp_path / "cut.mp4", audio_path=source, audio_start=start) as writer:
            for frame in frames[:40]:
                writer.write(frame)
        found = media.click_times(load_waveform(tmp_path / "cut.mp4", RATE), RATE)
        expected = [time + sound_start - start for time in CLICKS if 0 <= time + sound_start - start < 1.6]
        assert found == pytest.approx(expected, abs=0.012)


def test_a_sound_file_without_a_video(tmp_path):
    source = media.write_wav(tmp_path / "a.wav", media.clicks(5.6, CLICKS), RATE)
    with VideoWriter(tmp_path / "cut.mp4", audio_path=source, audio_start=2.4) as writer:
        for frame in media.numbered_frames(30):
            writer.write(frame)
    found = media.click_times(load_waveform(tmp_path / "cut.mp4", RATE), RATE)
    assert found == pytest.approx([0.2, 0.9], abs=0.012)


def test_blocks_are_the_whole_sound(tmp_path):
    path = media.write_wav(tmp_path / "a.wav", media.speech_like(2.3), 44_100)
    blocks = list(waveform_blocks(path))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate(blocks), load_waveform(path))


def test_sound_is_measured_in_steps_whatever_its_blocks():
    seconds = 1.5 * BLOCK_STEPS / FEATURE_RATE
    wave = media.speech_like(seconds)
    wave[: len(wave) // 3] *= 0.01
    facts, again = (survey_sound(np.array_split(wave, n_parts)) for n_parts in (7, 300))
    np.testing.assert_array_equal(facts.levels, again.levels)
    np.testing.assert_array_equal(facts.voiced, again.voiced)
    assert len(facts.levels) == len(facts.voiced) == round(seconds * FEATURE_RATE)
    np.testing.assert_array_equal(facts.levels, step_levels(wave))
    pitch = pitch_contour(wave) > 0
    assert (facts.voiced[: len(pitch)] == pitch).mean() > 0.98
    assert survey_sound([]) is None
    assert survey_sound([wave[: SAMPLES_PER_FEATURE - 1]]) is None


def test_levels_are_decibels_of_full_scale():
    wave = np.repeat(np.array([1.0, 0.1, 0.0], np.float32), SAMPLES_PER_FEATURE)
    assert step_levels(wave) == pytest.approx([0, -20, -100], abs=0.01)
