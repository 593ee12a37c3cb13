"""Everybody in a clip, as lines to read and a picture to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from models.tracking.people_tracker import PeopleTracker
from models.tracking.speaker_choice import Ears, box_text, choose_speaker
from utils.core.types import MOTION_FPS
from utils.people.people import Person, gather_people
from utils.people.people_sheet import draw_people, frames_to_show
from utils.people.speaker import Speaker


def list_speakers(
    frames: Iterable[np.ndarray],
    frames_at: Callable[[Sequence[int]], Iterator[np.ndarray]],
    speaker: Speaker,
    ears: Ears,
    fps: float = MOTION_FPS,
) -> tuple[list[str], np.ndarray] | None:
    """One line for each person and one for the choice, and the sheet; None if nobody is there.

    frames: the clip, consumed once. frames_at: decodes the frames of some numbers again. Raises BadInput for a speaker
    who is not there.
    """
    with PeopleTracker(fps=fps) as tracker:
        clip = tracker(frames)
    people = gather_people(clip)
    if not people:
        return None
    choice = choose_speaker(people, speaker, ears, clip.n_frames, fps, always_listen=True)
    lines = [
        f"{index}: {line_of(person, agreement, fps)}"
        for index, (person, agreement) in enumerate(zip(people, choice.agreements, strict=True))
    ]
    lines.append(f"--speaker {speaker.text} means {choice.index}: {choice.reason}")
    overview, portraits = frames_to_show(people, clip.n_frames)
    order = sorted({overview, *portraits})
    images = dict(zip(order, frames_at(order), strict=True))
    return lines, draw_people(images[overview], overview, [images[n] for n in portraits], portraits, people)


def line_of(person: Person, agreement: float, fps: float) -> str:
    stop = person.pieces[-1].stop
    sound = f", agreement with the sound {agreement:.2f}" if np.isfinite(agreement) else ""
    place = f"first at {box_text(person)}"
    return f"{place}, {person.n_seen} frames from {person.start / fps:.2f} to {stop / fps:.2f} s{sound}"
