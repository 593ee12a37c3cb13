"""Real faces in composed frames: identities, small faces, gaps, the frame's edges."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import inference_edit_expression
from models.tracking.clip_tracking import TrackedClip, track_clip
from models.tracking.people_tracker import DETECT_EVERY, PeopleTracker
from models.tracking.speaker_choice import ClipSound
from tests.helpers import media, people_scene
from tests.helpers.people_scene import alone, at, first_person, second_person, two_people
from utils.core.errors import BadInput
from utils.files.image_files import read_rgb
from utils.people.face_frames import FADE
from utils.people.speaker import Speaker
from utils.people.tracklets import Person, gather_people
from utils.weights import packs

SILENT = ClipSound(lambda _: None)


def people_in(frames: list[np.ndarray], detect_every: int = DETECT_EVERY) -> list[Person]:
    with PeopleTracker(detect_every=detect_every) as tracker:
        return gather_people(tracker(frames))


def track(frames: list[np.ndarray], speaker: Speaker | None = None, **options: float) -> TrackedClip:
    return track_clip(frames, packs.mini_pack(), torch.device("cpu"), SILENT, speaker, "none", **options)


def middles(person: Person) -> dict[int, float]:
    """The x of a person's face in every frame that shows it."""
    faces = ((tracklet.start + i, face) for tracklet in person.tracklets for i, face in enumerate(tracklet.faces))
    return {frame: float(face[:, 0].mean()) for frame, face in faces}


@pytest.mark.parametrize("first_in_front", [True, False])
def test_two_people_who_cross_stay_themselves(first_in_front):
    n = 60
    frames = two_people(n, lambda i: (10 + 7 * i, 20), lambda i: (400 - 7 * i, 30), first_in_front)
    people = people_in(frames)
    assert len(people) == 2
    rightwards, leftwards = (middles(person) for person in people)
    assert rightwards.keys() >= {0, n - 1} and leftwards.keys() >= {0, n - 1}
    for frame, x in rightwards.items():
        assert abs(x - (87 + 7 * frame)) < 25, frame
    for frame, x in leftwards.items():
        assert abs(x - (475 - 7 * frame)) < 25, frame
    assert len(rightwards if first_in_front else leftwards) == n  # who is in front is never lost


def test_one_who_comes_back_beside_others_is_followed_from_the_first_frame(monkeypatch):
    """A person slides in some frames before the next search; found as early as with a search in every frame."""
    frames = two_people(40, at(30), lambda i: (max(360, 560 - 16 * max(0, i - 9)), 24))

    def starts(detect_every: int = DETECT_EVERY) -> list[int]:
        return [person.start for person in people_in(frames, detect_every)]

    found = starts()
    searched = starts(detect_every=1)
    assert len(found) == len(searched) == 2
    assert found[0] == 0 and searched[1] > 12
    assert found[1] <= searched[1] + 1
    monkeypatch.setattr("models.tracking.people_tracker.MOST_BYTES", 2 * frames[0].nbytes)  # two frames may be kept
    assert starts()[1] == 24 - 2


def test_one_who_leaves_is_not_replaced_by_the_one_who_stays():
    frames = two_people(40, at(30), lambda i: (340 + 8 * i, 30))
    result = track(frames, Speaker("right"))
    valid = result.track.valid
    assert valid[:8].all() and not valid[18:].any()
    assert (result.track.landmarks[valid, :, 0].mean(axis=1) > 300).all()
    assert track(frames, Speaker("left")).track.valid.all()


@pytest.mark.parametrize(("angle", "scale", "way"), [(15, 1.0, 35), (45, 1.3, 20)])
def test_who_sits_otherwise_after_a_jump_cut_is_still_one_person(angle: float, scale: float, way: int):
    """Lost and found again in one frame, and then not followed back to where it was followed already."""
    matrix = cv2.getRotationMatrix2D((226, 120), angle, scale)
    matrix[:, 2] += (way, 0)
    before = [alone(picture, 1, at(150))[0] for picture in first_person()[:30]]
    after = [cv2.warpAffine(frame, matrix, frame.shape[1::-1], borderValue=(90, 90, 90)) for frame in before]
    (person,) = people_in(before[:19] + after[19:])
    assert [(tracklet.start, tracklet.stop) for tracklet in person.tracklets] == [(0, 19), (19, 30)]


def test_speakers_are_told_by_place_and_size():
    frames = two_people(14, at(30), at(360))
    people = people_in(frames)
    first, second = (person.first_box for person in people)
    assert first[2] < second[0]
    sides = {}
    for text, speaker in {
        "left": Speaker("left"),
        "right": Speaker("right"),
        "largest": Speaker("largest"),
        "silent": Speaker("auto"),
        "0": Speaker("", index=0),
        "1": Speaker("", index=1),
        "435,110": Speaker("", point=(435, 110)),
    }.items():
        result = track(frames, speaker)
        assert result.track.valid.all()
        sides[text] = "left" if result.track.landmarks[0, :, 0].mean() < 280 else "right"
    assert sides == {
        "left": "left",
        "0": "left",
        "largest": "left",
        "silent": "left",
        "right": "right",
        "1": "right",
        "435,110": "right",
    }
    with pytest.raises(BadInput, match="no such speaker: expected --speaker 0 to 1, found 2 people"):
        track(frames, Speaker("", index=2))
    with pytest.raises(BadInput, match="no face at 280,230"):
        track(frames, Speaker("", point=(280, 230)))


def test_a_face_of_40_pixels_is_tracked_where_the_mesh_alone_sees_none():
    large = media.portrait(192)
    height = 88  # of the picture; the face itself is about 40 px
    small = cv2.resize(large, (height, height), interpolation=cv2.INTER_AREA)
    frames = alone(small, 10, lambda i: (700 + i, 300), (720, 1280))
    result = track(frames)
    assert result.track.valid.all()
    assert 25 <= np.ptp(result.track.landmarks[0, :, 0]) <= 50
    expected = track([large] * 3).track.landmarks[0, :, :2] * (height / 192) + (700, 300)
    distance = np.linalg.norm(result.track.landmarks[0, :, :2] - expected, axis=1).mean()
    assert distance < 0.04 * np.ptp(expected[:, 1])


def test_a_short_gap_is_interpolated_and_a_long_one_fades():
    def hidden(gap: range, n: int, fps: float = 25) -> TrackedClip:
        frames = alone(second_person(), n, lambda i: (100 + i, 24))
        for index in gap:
            cv2.rectangle(frames[index], (150, 55), (265, 190), (90, 90, 90), -1)
        return track(frames, fps=fps)

    short = hidden(range(12, 16), 30)
    assert short.track.valid.all()
    assert short.strength(short.track.valid).min() == 1
    path = short.track.landmarks[:, 4, 0]
    np.testing.assert_allclose(np.diff(path), 1, atol=0.9)
    assert short.describe() == ["interpolated: 4 frames (0.48 to 0.64 s)"]

    at_twice_the_rate = hidden(range(12, 21), 30, fps=50)
    assert at_twice_the_rate.describe() == ["interpolated: 9 frames (0.24 to 0.42 s)"]

    long = hidden(range(12, 24), 40)
    assert not long.track.valid[12:24].any()
    assert long.track.valid[:12].all() and long.track.valid[24:].all()
    strength = long.strength(long.track.valid)
    ramp = np.arange(1, FADE + 1) / (FADE + 1)
    np.testing.assert_allclose(strength[24 : 24 + FADE], ramp, rtol=1e-6)
    np.testing.assert_allclose(strength[12 - FADE : 12], ramp[::-1], rtol=1e-6)
    assert strength[0] == strength[-1] == 1
    assert long.describe() == ["untouched, face not in sight: 12 frames (0.48 to 0.96 s)"]


def test_a_mouth_cut_off_by_the_edge_stays_untouched():
    frames = alone(second_person(), 50, lambda i: (360, 24 if i < 20 else min(165, 24 + 8 * (i - 20))))
    result = track(frames)
    assert result.track.valid[:20].all()
    assert not result.track.valid[-10:].any()
    assert any("mouth cut off" in line or "not in sight" in line for line in result.describe())
    shown = result.track.landmarks[result.track.valid]
    assert (shown[:, 17, 1] <= people_scene.SCENE[0]).all()


def test_upstream_s_way_neither_fades_nor_interpolates():
    frames = [*media.face_frames(6), *media.blank_frames(3), *media.face_frames(6)]
    result = track(frames, faithful=True)
    assert result.track.valid.tolist() == [True] * 6 + [False] * 3 + [True] * 6
    np.testing.assert_array_equal(result.strength(result.track.valid), result.track.valid)
    assert result.describe() == []


def test_who_is_there_is_listed_and_drawn(tmp_path: Path, capsys):
    clip = media.write_clip(tmp_path / "a clip.mp4", two_people(14, at(30), at(360)))
    inference_edit_expression.main(
        ["--infer_video_path", str(clip), "--infer_result_dir", str(tmp_path / "edit"), "--list-speakers"]
    )
    lines = capsys.readouterr().out.splitlines()
    path = tmp_path / "edit" / "a clip" / "speakers.png"
    assert [line[:2] for line in lines[:2]] == ["0:", "1:"]
    assert lines[2].startswith("--speaker auto means 0: ")
    assert lines[3] == f"{path}: 2 with their numbers"
    sheet = read_rgb(path, "advice")
    assert sheet.shape[1] == people_scene.SCENE[1]
    boxes = ((sheet[..., 1] > 240) & (sheet[..., 0] < 90)).sum(axis=0)
    assert boxes[:280].sum() > 200 and boxes[280:].sum() > 200

    blank = media.write_clip(tmp_path / "blank.mp4", media.blank_frames(5))
    with pytest.raises(BadInput, match=r"no face found .*blank"):
        inference_edit_expression.main(["--infer_video_path", str(blank), "--list-speakers"])
