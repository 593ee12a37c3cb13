"""Composed frames with two real people: the portrait of the demo and the astronaut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from tests.helpers import media
from utils.media.video import read_frames

PORTRAIT = Path(__file__).resolve().parents[2] / "demo" / "portrait.mp4"
SCENE = (240, 560)  # height, width
TILE = 192  # side of a person's image, before its sides are cut off
N_PORTRAIT = 60

Place = Callable[[int], tuple[int, int]]  # of frame i: left, top


@cache
def first_person() -> list[np.ndarray]:
    """The moving portrait, uint8 RGB [192, 152, 3] each."""
    frames = read_frames(PORTRAIT, stop=N_PORTRAIT)
    return [cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA)[:, 20:172] for frame in frames]


def second_person() -> np.ndarray:
    return media.portrait(TILE)[:, 20:172]


def put(scene: np.ndarray, picture: np.ndarray, left: int, top: int) -> None:
    """Paste in place; what lies outside the scene is cut off."""
    height, width = scene.shape[:2]
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + picture.shape[1], width), min(top + picture.shape[0], height)
    if x1 < x2 and y1 < y2:
        scene[y1:y2, x1:x2] = picture[y1 - top : y2 - top, x1 - left : x2 - left]


def two_people(n_frames: int, first: Place, second: Place, first_in_front: bool = True) -> list[np.ndarray]:
    people = first_person()
    frames = []
    for index in range(n_frames):
        scene = np.full((*SCENE, 3), 90, np.uint8)
        layers = [(people[index % len(people)], first(index)), (second_person(), second(index))]
        for picture, (left, top) in reversed(layers) if first_in_front else layers:
            put(scene, picture, left, top)
        frames.append(scene)
    return frames


def at(left: int, top: int = 24) -> Place:
    return lambda _index: (left, top)


def alone(picture: np.ndarray, n_frames: int, place: Place, size: Sequence[int] = SCENE) -> list[np.ndarray]:
    frames = []
    for index in range(n_frames):
        scene = np.full((*size, 3), 90, np.uint8)
        put(scene, picture, *place(index))
        frames.append(scene)
    return frames
