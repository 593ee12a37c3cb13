"""Segments of a video that become clips: runs, gaps, trimming, crops and the reasons of rejections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from utils.curation.clip_choice import (
    MIN_FACE,
    RIVAL,
    TRIMMED,
    Limits,
    SoundFacts,
    VideoFacts,
    choose_segments,
    crop_of,
    frame_states,
    union_crop,
)
from utils.people.visibility import BRIDGED, MAX_TURN, FrameState, bridge_gaps, is_inside, runs, yaw_degrees

F, N, S, U, T, O = FrameState  # noqa: E741
LIMITS = Limits(min_frames=30, min_face=50)


def facts_of(n_frames: int, cuts: tuple[int, ...] = (), changes: tuple[int, ...] = ()) -> VideoFacts:
    """A face of 60 x 80 pixels that stays where it is."""
    return VideoFacts(
        size=(200, 150),
        boxes=np.tile(np.array([70, 30, 130, 110], np.int32), (n_frames, 1)),
        sizes=np.full(n_frames, 60, np.float32),
        rivals=np.zeros(n_frames, np.float32),
        turns=np.zeros(n_frames, np.float32),
        clear=np.ones(n_frames, bool),
        mouth_inside=np.ones(n_frames, bool),
        cuts=list(cuts),
        changes=list(changes),
    )


def speech(n_frames: int) -> SoundFacts:
    steps = np.arange(2 * n_frames)
    return SoundFacts(steps % 10 < 5, np.where(steps % 10 < 7, -20.0, -45.0).astype(np.float32))


def ranges(segments) -> list[tuple[int, int]]:
    return [(segment.start, segment.stop) for segment in segments]


def test_runs_tile_the_frames_and_end_at_boundaries():
    states = np.array([N, N, F, F, F, F, S, F], np.uint8)
    assert list(runs(states, set())) == [(0, 2), (2, 6), (6, 7), (7, 8)]
    assert list(runs(states, {0, 2, 4, 8})) == [(0, 2), (2, 4), (4, 6), (6, 7), (7, 8)]
    assert list(runs(states[:0], set())) == []
    assert list(runs(states[:1], {0, 1})) == [(0, 1)]


@pytest.mark.parametrize(
    ("states", "boundaries", "expected"),
    [
        ([F, N, F], set(), [F, F, F]),
        ([F, N, S, U, F], set(), [F, F, F, F, F]),
        ([F, *[N] * BRIDGED, F], set(), [F] * (BRIDGED + 2)),
        ([F, *[N] * (BRIDGED + 1), F], set(), [F, *[N] * (BRIDGED + 1), F]),
        ([N, F, N], set(), [N, F, N]),
        ([F, N, N, F], {1}, [F, N, N, F]),
        ([F, N, N, F], {2}, [F, N, N, F]),
        ([F, N, N, F], {3}, [F, N, N, F]),
        ([F, N, N, F, F], {4}, [F, F, F, F, F]),
    ],
)
def test_short_gaps_are_bridged_within_a_shot(states, boundaries, expected):
    given = np.array(states, np.uint8)
    assert bridge_gaps(given, boundaries).tolist() == expected
    assert given.tolist() == states


def test_state_of_a_frame():
    facts = facts_of(7)
    facts.sizes[1] = 0
    facts.rivals[2] = RIVAL
    facts.rivals[3] = RIVAL - 0.01
    facts.clear[4] = False
    facts.turns[5] = -MAX_TURN - 0.1
    facts.mouth_inside[6] = False
    assert frame_states(facts, LIMITS).tolist() == [F, N, S, F, U, T, O]


def test_a_segment_is_cut_at_shots_and_trimmed():
    segments = choose_segments(facts_of(100, cuts=(40,), changes=(75,)), speech(100), LIMITS)
    assert ranges(segments) == [(0, 40), (40, 75), (75, 100)]
    assert [segment.until for segment in segments] == ["cut", "another speaker", "end of the video"]
    assert [segment.is_kept for segment in segments] == [True, True, False]
    assert segments[1].trimmed == range(40 + TRIMMED, 75 - TRIMMED)
    assert segments[2].reasons == ("25 of 30 frames",)


def test_the_shortest_segment_that_is_kept():
    for n_frames, is_kept in ((29, False), (30, True)):
        (segment,) = choose_segments(facts_of(n_frames), speech(n_frames), LIMITS)
        assert segment.is_kept == is_kept


def test_reasons_of_other_states():
    facts = facts_of(100)
    facts.sizes[:10], facts.clear[:10] = 0, False
    facts.rivals[40:50] = 0.9
    facts.clear[90:], facts.sizes[90:] = False, 20
    segments = choose_segments(facts, speech(100), LIMITS)
    assert ranges(segments) == [(0, 10), (10, 40), (40, 50), (50, 90), (90, 100)]
    reasons = [", ".join(segment.reasons) for segment in segments]
    assert reasons == ["no face", "", "several faces", "", "no landmarks on the face, face of 20 px, 50 needed"]
    assert segments[0].until == "one face"
    assert segments[1].until == "several faces"


def test_a_small_face_is_measured_over_the_segment():
    facts = facts_of(40)
    facts.sizes[:] = MIN_FACE - 1
    facts.sizes[:15] = 500
    (segment,) = choose_segments(facts, speech(40), replace(LIMITS, min_face=MIN_FACE))
    assert segment.reasons == ("face of 95 px, 96 needed",)


def test_reasons_of_sound():
    def reasons(sound: SoundFacts | None, limits: Limits = LIMITS) -> tuple[str, ...]:
        (segment,) = choose_segments(facts_of(40), sound, limits)
        return segment.reasons

    good = speech(40)
    assert reasons(good) == ()
    assert reasons(None) == ("no sound",)
    assert reasons(SoundFacts(good.voiced[:0], good.levels[:0])) == ("no sound",)
    assert reasons(replace(good, levels=good.levels - 40)) == ("silence: -62 dB, -50 needed",)
    assert reasons(replace(good, voiced=good.voiced & False)) == (
        "sound is not speech: 0.00 of it voiced, 0.12 to 0.9 expected",
    )
    assert "1.00 of it voiced" in reasons(replace(good, voiced=good.voiced | True))[0]
    assert "level varies by 0.0 dB" in reasons(replace(good, levels=np.full(80, -20, np.float32)))[0]
    assert reasons(None, replace(LIMITS, min_voiced=0)) == ()


def test_sound_is_judged_where_the_segment_is():
    sound = speech(80)
    sound.levels[80:] = -90
    segments = choose_segments(facts_of(80, cuts=(40,)), sound, LIMITS)
    assert [segment.is_kept for segment in segments] == [True, False]


def test_crop_is_the_union_and_a_quarter_of_the_mean_box():
    boxes = np.array([[50, 40, 90, 80], [60, 50, 100, 110]], np.int32)  # mean 40 x 50
    assert union_crop(boxes, (640, 480)).tolist() == [40, 27, 110, 123]
    assert union_crop(boxes, (105, 100)).tolist() == [40, 27, 104, 99]
    assert union_crop(boxes - 50, (640, 480)).tolist() == [0, 0, 60, 72]


def test_crop_looks_at_faces_of_the_given_frames_only():
    facts = facts_of(30)
    facts.boxes[5], facts.boxes[25] = 0, (0, 0, 200, 150)
    facts.clear[5] = False
    assert crop_of(facts, range(2, 20)).tolist() == [55, 10, 145, 130]
    with pytest.raises(ValueError, match="no face"):
        crop_of(facts, range(5, 6))


def test_yaw_and_mouth():
    landmarks = np.zeros((468, 3), np.float32)
    landmarks[234], landmarks[454] = (-1, 0, 0), (1, 0, 0)
    assert yaw_degrees(landmarks) == pytest.approx(0)
    landmarks[234, 2], landmarks[454, 2] = -1, 1
    assert yaw_degrees(landmarks) == pytest.approx(45)
    corners = np.array([[0.0, 0.0], [10.0, 5.0]])
    assert is_inside(corners, (10, 5))
    assert not is_inside(corners, (10, 4))
    assert not is_inside(corners - 1, (10, 5))
