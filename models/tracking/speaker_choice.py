"""Choice of the speaker: the person whose mouth opens as the clip's own sound predicts; and the list of all people.

Measured on 39 talking clips with pairs of them as if side by side, the sound of one, both mouths talking (1478 pairs,
by a model that has not seen the speaker): the right one has the higher agreement in 99.2 % of the pairs after 2 s, in
99.7 % after 3 s and in all (596) after 5 s. After 5 s the speaker's own agreement is above 0.4 in every clip, and that
of another person above 0.3 in 5 % of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from models.audio.speech_encoder import SpeechEncoder
from models.lipsync.av_agreement import N_CURVES, AvModel, agreement, encoder_features, mouth_curves
from models.tracking.people_tracker import PeopleTracker
from utils.core.errors import BadInput
from utils.core.types import INAUDIBLE, MOTION_FPS, SAMPLES_PER_FRAME, VideoInfo
from utils.imaging.geometry import box_of, overlap
from utils.media.audio import load_waveform
from utils.media.timeline import lasting
from utils.people.people_sheet import draw_people, frames_to_show
from utils.people.speaker import ADVICE, Speaker
from utils.people.tracklets import FIRST_FRAMES, Person, gather_people
from utils.weights import packs

MIN_AGREEMENT = 0.3  # of the speaker; see above
MIN_LEAD = 0.05  # over the next person
MIN_SEEN = 0.5  # of the frames of the most prominent person, for an agreement to count
ENOUGH_FRAMES = 125  # at 25 Hz, enough to identify the speaker; see above
MOST_FRAMES = 7500  # at 25 Hz, that are compared; five minutes, so that memory stays that of a short clip
SAME_PERSON_OVERLAP = 0.5  # of the smaller box, from which two faces in one frame are one person's
MAX_LAG = 4  # frames at 25 Hz that a clip's sound may be off, either way


@dataclass(frozen=True)
class ClipSound:
    """The sound of a clip, by which its speaker is found.

    read: at most that many samples from the start, float32 [n] at 16 kHz; None if there is no sound.
    """

    read: Callable[[int], np.ndarray | None]

    @classmethod
    def of(cls, video: VideoInfo) -> ClipSound:
        """A clip's own sound; none if it cannot be decoded."""

        def read(n_samples: int) -> np.ndarray | None:
            with suppress(BadInput):
                return load_waveform(video.path, longest=n_samples) if video.has_audio else None
            return None

        return cls(read)


@dataclass(frozen=True)
class SpeakerChoice:
    """The speaker's number, the reason, and each person's agreement with the sound (NaN: unknown)."""

    index: int
    reason: str
    agreements: list[float]


def choose_speaker(
    people: Sequence[Person],
    speaker: Speaker,
    sound: ClipSound,
    n_frames: int,
    fps: float = MOTION_FPS,
    with_agreements: bool = False,
) -> SpeakerChoice:
    """The person whom ``speaker`` names. Sound is decoded only if it decides or ``with_agreements``.

    Without the agreement model, or without sound, "auto" is the most prominent person. Raises BadInput if ``speaker``
    names nobody.
    """
    agreements = [float("nan")] * len(people)
    if (speaker.word == "auto" and len(people) > 1) or with_agreements:
        agreements = agreements_with(people, sound, n_frames, fps)
    if speaker.word != "auto":
        return SpeakerChoice(person_at_place(people, speaker, fps), "as asked for", agreements)
    if len(people) == 1:
        return SpeakerChoice(0, "nobody else is there", agreements)
    most = people[most_prominent(people)].n_seen
    counted = [
        value if np.isfinite(value) and person.n_seen >= MIN_SEEN * most else -1.0
        for person, value in zip(people, agreements, strict=True)
    ]
    best, second = sorted(range(len(people)), key=lambda index: -counted[index])[:2]
    if counted[best] >= MIN_AGREEMENT and counted[best] >= counted[second] + MIN_LEAD:
        return SpeakerChoice(best, f"mouth moves with the sound, agreement {counted[best]:.2f}", agreements)
    why = "the sound fits nobody's mouth clearly" if max(counted) > -1 else "there is too little speech to go by"
    if not packs.agreement_model().is_file():
        why = f"the sound is not compared without {packs.agreement_model()}"
    return SpeakerChoice(most_prominent(people), f"the most prominent; {why}", agreements)


def choose_with_more(
    people: Sequence[Person],
    watch: Callable[[int], tuple[list[Person], int]],
    sound: ClipSound,
    n_frames: int,
    fps: float = MOTION_FPS,
) -> SpeakerChoice:
    """The speaker, where ``n_frames`` may be too few: more of the clip is then tracked and compared.

    watch: finds the people in up to that many of the clip's first frames, and the number of these frames.
    """
    if len(people) == 1 or n_frames >= lasting(ENOUGH_FRAMES, fps):
        return choose_speaker(people, Speaker(), sound, n_frames, fps)
    later, n_watched = watch(lasting(ENOUGH_FRAMES, fps))
    again = [next((other for other in later if _is_same(person, other)), person) for person in people]
    return choose_speaker(again, Speaker(), sound, n_watched, fps)


def _is_same(person: Person, other: Person) -> bool:
    face = other.face_at(person.start)
    return face is not None and overlap(box_of(face), person.first_box) >= SAME_PERSON_OVERLAP


def agreements_with(people: Sequence[Person], sound: ClipSound, n_frames: int, fps: float) -> list[float]:
    """Each person's agreement with the sound of the first MOST_FRAMES frames; NaN if undetermined.

    Raises BadInput if the speech encoder's wheel is missing or damaged.
    """
    unknown = [float("nan")] * len(people)
    if not packs.agreement_model().is_file():
        return unknown
    n_compared = min(round(n_frames * MOTION_FPS / fps), MOST_FRAMES)
    wave = sound.read(n_compared * SAMPLES_PER_FRAME)
    if wave is None or len(wave) == 0 or np.abs(wave).max() < INAUDIBLE:
        return unknown
    features = encoder_features(SpeechEncoder.load(), wave, n_compared)
    predicted = AvModel.load(packs.agreement_model()).predict(features)
    scores = [agreement(curves_of(person, n_frames, n_compared, fps), predicted, MAX_LAG) for person in people]
    return [float("nan") if score is None else score.best.r for score in scores]


def curves_of(person: Person, n_frames: int, n_wanted: int, fps: float) -> Float[np.ndarray, "t 2"]:
    """Opening and width of the mouth in ``n_wanted`` frames at 25 Hz; NaN where the person is not in sight."""
    curves = np.full((n_frames, N_CURVES), np.nan)
    for tracklet in person.tracklets:
        curves[tracklet.start : tracklet.stop] = [mouth_curves(face[None])[0] for face in tracklet.faces]
    nearest = np.floor((np.arange(n_wanted) + 0.5) * fps / MOTION_FPS).astype(int).clip(0, max(0, n_frames - 1))
    return curves[nearest]


def person_at_place(people: Sequence[Person], speaker: Speaker, fps: float = MOTION_FPS) -> int:
    """The person whom anything but "auto" names. Raises BadInput if there is none."""
    first = min(person.start for person in people)
    early = [index for index, person in enumerate(people) if person.start < first + lasting(FIRST_FRAMES, fps)]
    if speaker.index is not None:
        if speaker.index >= len(people):
            found = "1 person" if len(people) == 1 else f"{len(people)} people"
            raise BadInput("no such speaker", None, f"--speaker 0 to {len(people) - 1}", found, ADVICE)
        return speaker.index
    if speaker.point is not None:
        return _person_at(people, speaker.point)
    if speaker.word == "left":
        return early[0]
    return early[-1] if speaker.word == "right" else most_prominent(people)


def most_prominent(people: Sequence[Person]) -> int:
    """The person with the largest sum of face heights over the frames."""
    return int(np.argmax([person.prominence for person in people]))


def _person_at(people: Sequence[Person], point: tuple[int, int]) -> int:
    """The person whose face lies around a pixel in their first frame, else in any frame."""
    for frames in ("first", "any"):
        for index, person in enumerate(people):
            faces = (face for tracklet in person.tracklets for face in tracklet.faces)
            boxes = [person.first_box] if frames == "first" else [box_of(face) for face in faces]
            if any(x1 <= point[0] <= x2 and y1 <= point[1] <= y2 for x1, y1, x2, y2 in boxes):
                return index
    places = "; ".join(f"{index}: {_box_text(person)}" for index, person in enumerate(people))
    raise BadInput(f"no face at {point[0]},{point[1]}", None, "a pixel on a face", f"faces at {places}", ADVICE)


def _box_text(person: Person) -> str:
    x1, y1, x2, y2 = (round(edge) for edge in person.first_box)
    return f"{x1},{y1} to {x2},{y2}"


def list_speakers(
    frames: Iterable[np.ndarray],
    frames_at: Callable[[Sequence[int]], Iterator[np.ndarray]],
    speaker: Speaker,
    sound: ClipSound,
    fps: float = MOTION_FPS,
) -> tuple[list[str], np.ndarray] | None:
    """One line for each person and one for the choice, and the contact sheet; None if there is no face.

    frames: the clip, consumed once. frames_at: decodes the frames of some numbers again. Raises BadInput for a speaker
    who is not there.
    """
    with PeopleTracker(fps=fps) as tracker:
        clip = tracker(frames)
    people = gather_people(clip)
    if not people:
        return None
    choice = choose_speaker(people, speaker, sound, clip.n_frames, fps, with_agreements=True)
    lines = [
        f"{index}: {_person_text(person, agreement, fps)}"
        for index, (person, agreement) in enumerate(zip(people, choice.agreements, strict=True))
    ]
    lines.append(f"--speaker {speaker} means {choice.index}: {choice.reason}")
    overview, portraits = frames_to_show(people, clip.n_frames)
    order = sorted({overview, *portraits})
    images = dict(zip(order, frames_at(order), strict=True))
    return lines, draw_people(images[overview], overview, [images[n] for n in portraits], portraits, people)


def _person_text(person: Person, agreement: float, fps: float) -> str:
    stop = person.tracklets[-1].stop
    sound = f", agreement with the sound {agreement:.2f}" if np.isfinite(agreement) else ""
    place = f"first at {_box_text(person)}"
    return f"{place}, {person.n_seen} frames from {person.start / fps:.2f} to {stop / fps:.2f} s{sound}"
