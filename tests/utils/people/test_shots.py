"""Cuts and changes of the person, found frame by frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from models.tracking.face_tracker import MediaPipeTracker
from models.tracking.people_tracker import FrameFaces, PeopleTracker
from models.tracking.video_survey import survey_frames
from tests.helpers import media
from utils.people.shots import (
    APPEARANCE_WINDOW,
    MAX_FACE_GROWTH,
    MAX_FACE_STEP,
    Appearance,
    CutDetector,
    MeanAppearance,
    PersonChangeDetector,
    leaps,
    similarity,
)


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    with MediaPipeTracker() as tracker:
        return tracker(media.portrait()).landmarks


def cuts_of(frames: list[np.ndarray]) -> list[int]:
    detector = CutDetector()
    return [number for number, frame in enumerate(frames) if detector(frame)]


def test_cuts_between_pictures():
    one, other = media.smooth_picture(96, 64, seed=0), media.smooth_picture(96, 64, seed=1)
    assert cuts_of([one, one, other, other, one]) == [2, 4]


def test_motion_noise_and_light_are_no_cuts():
    rng = np.random.default_rng(0)
    picture = media.portrait()
    frames = [np.roll(picture, 3 * step, axis=1) for step in range(8)]
    frames += [(frames[-1] * level).astype(np.uint8) for level in np.linspace(1, 0.6, 20)]
    noise = rng.normal(0, 4, (4, *picture.shape))
    frames += [(frames[-1] + grain).clip(0, 255).astype(np.uint8) for grain in noise]
    assert cuts_of(frames) == []


def test_a_leap_of_the_face_is_a_cut(landmarks):
    height = np.ptp(landmarks[:, 1])
    moved = landmarks + np.array([1.05 * MAX_FACE_STEP * height, 0, 0], np.float32)
    assert leaps(landmarks, moved)
    assert leaps(landmarks, landmarks * np.float32(1.05 * MAX_FACE_GROWTH))
    assert not leaps(landmarks, landmarks + np.array([0.5 * MAX_FACE_STEP * height, 0, 0], np.float32))


def test_a_survey_takes_a_leap_of_the_only_face_for_a_cut(landmarks):
    """Scripted faces; a jump counts unless the face is lost, or one of two, in between."""
    height = np.ptp(landmarks[:, 1])
    moved = landmarks + np.array([1.05 * MAX_FACE_STEP * height, 0, 0], np.float32)

    class Scripted(PeopleTracker):
        def __init__(self, script: list[list[np.ndarray]]) -> None:
            self.script = script

        def watch(self, frames: list[np.ndarray]) -> Iterator[FrameFaces]:
            for frame, faces in zip(frames, self.script, strict=True):
                yield FrameFaces(frame, False, faces, [], [])

    def cuts(*script: list[np.ndarray]) -> list[int]:
        return survey_frames([media.portrait()] * 4, Scripted(list(script))).cuts

    assert cuts([landmarks], [landmarks], [moved], [moved]) == [2]
    assert cuts([landmarks], [], [moved], [moved]) == []
    assert cuts([landmarks], [landmarks, moved], [moved], [moved]) == []


def faces_with_noise(picture: np.ndarray, n_frames: int, seed: int) -> list[np.ndarray]:
    noise = np.random.default_rng(seed).normal(0, 3, (n_frames, *picture.shape))
    return [(picture + grain).clip(0, 255).astype(np.uint8) for grain in noise]


def changes_of(frames: list[np.ndarray], landmarks: np.ndarray, skipped: range = range(0)) -> list[int]:
    watch = PersonChangeDetector()
    for number, frame in enumerate(frames):
        if number not in skipped:
            watch(number, frame, landmarks, turn=0.0)
    watch.new_shot()
    return watch.changes


def test_another_face_that_fades_in_is_noticed(landmarks):
    n_frames = APPEARANCE_WINDOW + 20
    one, other = media.portrait().astype(float), media.smooth_picture(192, 192).astype(float)
    fading = [((1 - share) * one + share * other).astype(np.uint8) for share in np.linspace(0, 1, 21)]
    frames = [
        *faces_with_noise(one, n_frames, seed=0),
        *fading,
        *faces_with_noise(other, n_frames, seed=1),
    ]
    (change,) = changes_of(frames, landmarks)
    assert n_frames <= change <= n_frames + len(fading)


def test_one_face_is_one_speaker(landmarks):
    frames = faces_with_noise(media.portrait(), 3 * APPEARANCE_WINDOW, seed=0)
    assert changes_of(frames, landmarks) == []
    brighter = [(frame * 0.7).astype(np.uint8) for frame in frames[:APPEARANCE_WINDOW]]
    assert changes_of(frames[:APPEARANCE_WINDOW] + brighter, landmarks) == []


def test_a_long_gap_begins_anew(landmarks):
    n_frames = APPEARANCE_WINDOW + 10
    frames = [media.portrait()] * (n_frames + 10) + [media.smooth_picture(192, 192)] * n_frames
    assert changes_of(frames, landmarks, skipped=range(n_frames, n_frames + 10)) == []
    assert len(changes_of(frames, landmarks, skipped=range(n_frames + 8, n_frames + 10))) == 1


def test_similarity_is_recovered():
    source = np.random.default_rng(0).normal(size=(5, 2))
    expected = np.array([[0.6, -0.8, 3.0], [0.8, 0.6, -1.0]]) * [[2, 2, 1], [2, 2, 1]]
    target = source @ expected[:, :2].T + expected[:, 2]
    np.testing.assert_allclose(similarity(source, target), expected, atol=1e-12)


def test_survey_of_a_real_face():
    """A face, nothing, the face twice, one that the mesh misses in a large frame."""
    small = np.full((720, 1280, 3), 90, np.uint8)
    small[180:372, 800:992] = media.portrait()
    pair = np.concatenate([media.portrait(), media.portrait()], axis=1)
    frames = [*media.face_frames(4), *media.blank_frames(2), pair, pair, small, small]
    with PeopleTracker() as tracker:
        facts = survey_frames(frames, tracker)
    assert facts.clear.tolist() == [True] * 4 + [False] * 2 + [True] * 4
    assert (facts.sizes > 0).tolist() == facts.clear.tolist()
    assert (facts.rivals > 0.9).tolist() == [False] * 6 + [True, True, False, False]
    assert facts.mouth_inside.tolist() == facts.clear.tolist()
    assert facts.cuts == [4, 6, 8]
    assert facts.sizes[8] == pytest.approx(facts.sizes[0], rel=0.1)
    assert facts.boxes[8] - [800, 180, 800, 180] == pytest.approx(facts.boxes[3], abs=6)
    assert np.abs(facts.turns[facts.clear]).max() < 15


def test_survey_of_nothing():
    with PeopleTracker() as tracker:
        assert len(survey_frames([], tracker)) == 0


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_mean_look_is_that_of_all_looks_at_once(kind):
    rng = np.random.default_rng(0)
    appearances = [Appearance(i, rng.random(1764).astype(kind), 20 * rng.standard_normal()) for i in range(40)]
    grown = MeanAppearance(appearances[:7])
    grown.add(appearances[7:])
    np.testing.assert_array_equal(grown.descriptor, np.mean([one.descriptor for one in appearances], axis=0))
    assert grown.descriptor.dtype == kind
    assert grown.turn == np.mean([one.turn for one in appearances])
