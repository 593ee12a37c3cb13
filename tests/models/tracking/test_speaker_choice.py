"""Choice of the speaker by sound; the values of --speaker."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from models.audio.speech_encoder import SpeechEncoder
from models.lipsync.av_agreement import AvModel, encoder_features
from models.tracking import speaker_choice
from models.tracking.speaker_choice import ENOUGH_FRAMES, ClipSound, choose_speaker, choose_with_more
from tests.helpers import media
from utils.core.errors import BadInput
from utils.core.types import N_LANDMARKS, SAMPLES_PER_FRAME
from utils.imaging.landmarks import LOWER_INNER_LIP, MOUTH_CORNERS, OUTER_EYE_CORNERS, UPPER_INNER_LIP
from utils.people.shots import Appearance
from utils.people.speaker import Speaker, parse_speaker
from utils.people.tracklets import Person, Tracklet
from utils.weights import packs, speech_wheel

N = 150
WAVE = media.speech_like(N / 25)


def person(mouth: np.ndarray, left: float, size: float = 100.0) -> Person:
    """Faces whose mouths are open and wide by ``mouth`` [n, 2] eye distances."""
    faces = np.zeros((len(mouth), N_LANDMARKS, 3), np.float32)
    faces[..., 0] = left
    faces[:, 10], faces[:, 152] = (left, 0, 0), (left + size, size, 0)
    faces[:, OUTER_EYE_CORNERS[0]], faces[:, OUTER_EYE_CORNERS[1]] = (left, 30, 0), (left + size, 30, 0)
    faces[:, [UPPER_INNER_LIP, LOWER_INNER_LIP, *MOUTH_CORNERS]] = (left, 70, 0)
    faces[:, LOWER_INNER_LIP, 1] += mouth[:, 0] * size
    faces[:, MOUTH_CORNERS[1], 0] += mouth[:, 1] * size
    return Person([Tracklet(0, list(faces), [Appearance(0, np.ones(4), 0.0)])])


@functools.cache
def predicted() -> np.ndarray:
    """Opening and width that fit WAVE, at 25 fps."""
    return AvModel.load(packs.agreement_model()).predict(encoder_features(SpeechEncoder.load(), WAVE, N))


def speaking(fps: float = 25) -> np.ndarray:
    """Opening and width of a mouth that fit WAVE, at ``fps``."""
    curves = 0.2 + 0.05 * (predicted() - predicted().min(axis=0))
    times = np.arange(0, N, 25 / fps)
    return np.stack([np.interp(times, np.arange(N), curve) for curve in curves.T], axis=1)


def chewing(n: int = N) -> np.ndarray:
    return np.stack([0.2 + 0.15 * np.sin(np.arange(n) * 0.31), 0.5 + 0.02 * np.cos(np.arange(n) * 0.31)], axis=1)


@pytest.mark.parametrize("fps", [25, 50, 29.97])
@pytest.mark.parametrize("place", [0, 1])
def test_the_sound_names_the_speaker(fps, place):
    mouth = speaking(fps)
    people = [person(chewing(len(mouth)), 0, 200), person(chewing(len(mouth)), 400, 200)]
    people[place] = person(mouth, 400 * place)
    choice = choose_speaker(people, Speaker(), ClipSound(lambda n: WAVE[:n]), len(mouth), fps)
    assert choice.index == place
    assert choice.agreements[place] > 0.8 > choice.agreements[1 - place]
    assert "agreement" in choice.reason


@pytest.mark.parametrize("wave", [None, np.zeros(N * 640, np.float32), np.zeros(0, np.float32), WAVE[:2000]])
def test_without_speech_the_most_prominent_is_taken(wave):
    people = [person(chewing(), 0, 80), person(chewing(), 400, 200)]
    assert choose_speaker(people, Speaker(), ClipSound(lambda n: wave if wave is None else wave[:n]), N).index == 1


@pytest.mark.parametrize("fps", [25, 50])
@pytest.mark.parametrize("place", [0, 1])
def test_more_of_a_clip_tells_who_speaks_where_a_second_is_shown(fps, place):
    """Of all who are watched longer, those of the first second are found again by the places of their faces."""
    spoken, n_shown = speaking(fps), fps
    mouths = [chewing(len(spoken)), chewing(len(spoken))]
    mouths[place] = spoken
    people = [person(mouth[:n_shown], 400 * index, 200 - 50 * (index == place)) for index, mouth in enumerate(mouths)]
    asked = []

    def watch(n: int) -> tuple[list[Person], int]:
        asked.append(n)
        strangers = [person(spoken[:n], 1000 + 300 * index) for index in range(8)]
        known = [person(mouth[:n], 400 * index, 150) for index, mouth in enumerate(mouths)]
        return [*strangers, *reversed(known)], n

    choice = choose_with_more(people, watch, ClipSound(lambda n: WAVE[:n]), n_shown, fps)
    assert (choice.index, asked) == (place, [ENOUGH_FRAMES * fps // 25])
    assert choose_speaker(people, Speaker(), ClipSound(lambda n: WAVE[:n]), n_shown, fps).index == 1 - place


def test_enough_of_a_clip_is_not_watched_again():
    people = [person(speaking(), 0, 80), person(chewing(), 400, 200)]

    def watch(n: int) -> tuple[list[Person], int]:
        raise AssertionError("the clip was watched again")

    assert choose_with_more(people, watch, ClipSound(lambda n: WAVE[:n]), N).index == 0
    assert choose_with_more(people[1:], watch, ClipSound(lambda n: WAVE[:n]), 5).index == 0


def test_two_mouths_that_move_alike_are_told_by_size():
    people = [person(speaking(), 0, 80), person(speaking(), 400, 200)]
    choice = choose_speaker(people, Speaker(), ClipSound(lambda n: WAVE[:n]), N)
    assert choice.index == 1
    assert "nobody's mouth clearly" in choice.reason


def test_no_more_than_the_first_minutes_are_listened_to(monkeypatch):
    monkeypatch.setattr(speaker_choice, "MOST_FRAMES", 100)
    asked = []

    def read_sound(n_samples: int) -> np.ndarray:
        asked.append(n_samples)
        return WAVE[:n_samples]

    people = [person(chewing(), 0), person(speaking(), 400)]
    assert choose_speaker(people, Speaker(), ClipSound(read_sound), N).index == 1
    assert asked == [100 * SAMPLES_PER_FRAME]


def test_the_sound_is_encoded_once_for_all_people(monkeypatch):
    encode_chunks, n_calls = SpeechEncoder.encode_chunks, []

    def counted(encoder: SpeechEncoder, wave: np.ndarray) -> object:
        n_calls.append(1)
        return encode_chunks(encoder, wave)

    monkeypatch.setattr(SpeechEncoder, "encode_chunks", counted)
    people = [person(chewing(), 0), person(speaking(), 400), person(chewing(), 800)]
    assert choose_speaker(people, Speaker(), ClipSound(lambda n: WAVE[:n]), N).index == 1
    assert len(n_calls) == 1


def test_a_missing_speech_encoder_is_an_error(monkeypatch):
    people = [person(chewing(), 0), person(speaking(), 400)]
    monkeypatch.setattr(speech_wheel, "WHEEL", replace(speech_wheel.WHEEL, name="pipecat-that-is-not-installed"))
    with pytest.raises(BadInput, match="speech networks missing: expected the wheel pipecat-that"):
        choose_speaker(people, Speaker(), ClipSound(lambda n: WAVE[:n]), N)
    assert choose_speaker(people[:1], Speaker(), ClipSound(lambda n: WAVE[:n]), N).index == 0


def test_nobody_listens_without_a_choice():
    def read_sound(_: int) -> np.ndarray:
        raise AssertionError("the sound was decoded")

    assert choose_speaker([person(chewing(), 0)], Speaker(), ClipSound(read_sound), N).index == 0
    people = [person(chewing(), 0), person(chewing(), 400)]
    assert choose_speaker(people, Speaker("right"), ClipSound(read_sound), N).index == 1


def test_without_the_agreement_model_the_most_prominent_is_taken(monkeypatch, tmp_path):
    """An official tree works without the folder of the mini pack; the reason, one line, names the missing file."""
    monkeypatch.setattr(packs, "MINI_DIR", tmp_path)
    people = [person(chewing(), 0, 80), person(chewing(), 400, 200)]
    choice = choose_speaker(people, Speaker(), ClipSound(lambda n: WAVE[:n]), N)
    assert choice.index == 1
    assert choice.reason == f"the most prominent; the sound is not compared without {tmp_path}/av_agreement.safetensors"
    assert np.isnan(choice.agreements).all()


def test_a_guest_of_a_moment_is_no_speaker():
    guest = person(speaking()[:60], 400)
    assert guest.n_seen < speaker_choice.MIN_SEEN * N
    assert choose_speaker([person(chewing(), 0), guest], Speaker(), ClipSound(lambda n: WAVE[:n]), N).index == 0


@pytest.mark.parametrize(
    ("text", "speaker"),
    [("left", Speaker("left")), ("2", Speaker("", index=2)), ("10,20", Speaker("", point=(10, 20)))],
)
def test_words_of_the_flag(text, speaker):
    assert parse_speaker(text) == speaker
    assert str(speaker) == text


@pytest.mark.parametrize("text", ["", "middle", "-1", "1.5", "1,", "1,2,3", "1, 2", "9999999", "٣"])
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match="expected auto, largest, left, right"):
        parse_speaker(text)
