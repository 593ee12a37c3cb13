"""utils/people/tracklets.py: assignment of tracklets to people at several frame rates (synthetic faces)."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from models.tracking.speaker_choice import person_at_place
from utils.core.types import N_LANDMARKS
from utils.people.shots import Appearance
from utils.people.speaker import Speaker
from utils.people.tracklets import ClipFaces, Tracklet, gather_people

HEIGHT = 100


def tracklet(start: int, n: int, left: float, likeness: float = 1.0) -> Tracklet:
    """A face in one place; likeness: cosine of its appearance with that of tracklets with 1."""
    face = np.zeros((N_LANDMARKS, 3), np.float32)
    face[1:, :2] = (HEIGHT, HEIGHT)
    appearance = Appearance(start, np.array([likeness, np.sqrt(1 - likeness**2)]), 0.0)
    return Tracklet(start, [face + np.float32([left, 0, 0])] * n, [appearance])


def count(fps: float, *tracklets: Tracklet) -> int:
    return len(gather_people(ClipFaces(2000, (1000, 500), list(tracklets), [], fps)))


@pytest.mark.parametrize("fps", [25, 50, 60])
def test_a_place_is_remembered_as_long_and_as_widely_at_any_rate(fps):
    """An ambiguous appearance: only the position decides that it is one person."""
    times = fps // 25 if fps != 60 else 2.4
    n = round(40 * times)

    def returning(gap: float, way: float) -> int:
        return count(fps, tracklet(0, n, 100), tracklet(n + round(gap * times), n, 100 + way, likeness=0.9))

    assert returning(50, 0) == 1
    assert returning(52, 0) == 2
    assert returning(20, 1.55 * HEIGHT) == 1  # 0.6 and 20 times 0.05 of a height
    assert returning(20, 1.65 * HEIGHT) == 2


@pytest.mark.parametrize(("fps", "least"), [(25, 12), (50, 24), (30, 14)])
def test_who_is_seen_too_shortly_is_no_person_at_any_rate(fps, least):
    lasting = tracklet(0, least + 3, 100)
    assert count(fps, lasting, tracklet(0, least, 600, likeness=0.0)) == 2
    assert count(fps, lasting, tracklet(0, least - 1, 600, likeness=0.0)) == 1


@pytest.mark.parametrize("fps", [25, 50])
def test_people_of_the_first_second_count_from_the_left(fps):
    later = (fps - 1, fps)
    for start, order in zip(later, ([100, 600], [600, 100]), strict=True):
        clip = ClipFaces(2000, (1000, 500), [tracklet(0, 99, 600), tracklet(start, 99, 100, likeness=0.0)], [], fps)
        people = gather_people(clip)
        assert [person.first_box[0] for person in people] == order
        assert person_at_place(people, Speaker("right"), fps) == order.index(600)
        assert person_at_place(people, Speaker("left"), fps) == 0


def test_an_hour_of_cuts_costs_as_much_per_piece_as_a_minute():
    """The appearances of earlier tracklets are neither copied nor searched for every tracklet."""
    rng = np.random.default_rng(0)
    appearances = [Appearance(0, rng.random(1764, np.float32), 0.0) for _ in range(15)]
    face = tracklet(0, 1, 100).faces[0]
    tracklets = [Tracklet(75 * k, [face] * 75, appearances) for k in range(400)]
    clip = ClipFaces(75 * 400, (1000, 500), tracklets, [one.start for one in tracklets])
    tracemalloc.start()
    (person,) = gather_people(clip)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(person.tracklets) == 400
    assert peak < 2 * 2**20  # bytes; the appearances of 400 tracklets are 42 MB
