"""Contact sheet of the people in a clip: a frame with numbered boxes, and below it a tile of each person."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from utils.imaging.contact_sheet import BACKGROUND, INK, cut_tile, draw_sheet, view_around
from utils.imaging.geometry import box_of
from utils.people.tracklets import Person

MOST_WIDTH, LEAST_WIDTH = 1280, 480  # pixels of the frame in the sheet
_BOX_COLOUR = (64, 255, 64)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def frames_to_show(people: Sequence[Person], n_frames: int) -> tuple[int, list[int]]:
    """The first frame that shows most people, and one frame for each person, in the middle of the longest tracklet."""
    counts = np.zeros(n_frames, int)
    for person in people:
        for tracklet in person.tracklets:
            counts[tracklet.start : tracklet.stop] += 1
    longest = [max(person.tracklets, key=lambda tracklet: len(tracklet.faces)) for person in people]
    return int(np.argmax(counts)), [(tracklet.start + tracklet.stop) // 2 for tracklet in longest]


def draw_people(
    overview: UInt8[np.ndarray, "h w 3"],
    overview_frame: int,
    portraits: Sequence[UInt8[np.ndarray, "h w 3"]],
    portrait_frames: Sequence[int],
    people: Sequence[Person],
) -> UInt8[np.ndarray, "sheet_h sheet_w 3"]:
    """The overview with a numbered box around each person in it, then a tile of each person, left to right."""
    height, width = overview.shape[:2]
    scale = min(MOST_WIDTH / width, max(1.0, LEAST_WIDTH / width))
    size = (round(width * scale), round(height * scale))
    frame = cv2.resize(overview, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for index, person in enumerate(people):
        face = person.face_at(overview_frame)
        if face is not None:
            _draw_box(frame, [edge * scale for edge in box_of(face)], str(index))
    columns = []
    for person, image, number in zip(people, portraits, portrait_frames, strict=True):
        face = person.face_at(number)
        box = None if face is None else np.array(box_of(face))
        columns.append([cut_tile(image, view_around((height, width), box))])
    tiles = draw_sheet(columns, [str(index) for index in range(len(people))])
    return _stacked([frame, tiles])


def _draw_box(image: np.ndarray, box: Sequence[float], label: str) -> None:
    x1, y1, x2, y2 = (round(edge) for edge in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), _BOX_COLOUR, 2)
    text_size, _ = cv2.getTextSize(label, _FONT, 1.0, 2)
    bottom = y1 - 6 if y1 - 6 - text_size[1] >= 0 else min(image.shape[0] - 4, y2 + text_size[1] + 6)
    cv2.putText(image, label, (max(x1, 0), bottom), _FONT, 1.0, (BACKGROUND,) * 3, 6, cv2.LINE_AA)
    cv2.putText(image, label, (max(x1, 0), bottom), _FONT, 1.0, (INK, 255, INK), 2, cv2.LINE_AA)


def _stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    width = max(image.shape[1] for image in images)
    rows = [
        np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=BACKGROUND) for image in images
    ]
    return np.concatenate(rows)
