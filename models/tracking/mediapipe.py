"""MediaPipe's face detector and face mesh: the only module that opens its solutions.

The package's top level pulls in tasks that need more libraries, and every solution drawing tools that load matplotlib,
half a second and is unused here; each solution is therefore loaded by itself.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from utils.core import cli
from utils.core.module_stand_ins import in_place_of
from utils.core.types import N_LANDMARKS
from utils.imaging.geometry import Box

SOLUTIONS = ("face_mesh", "face_detection")  # all that are used here
MIN_DETECTION_CONFIDENCE = 0.5
MIN_TRACKING_CONFIDENCE = 0.5
_WARM_UP_FRAME = np.zeros((64, 64, 3), np.uint8)  # triggers MediaPipe's one-time native logging


class FaceDetector:
    """MediaPipe's detector for near faces or, with ``is_far``, for faces across a room; no memory between images."""

    def __init__(self, is_far: bool) -> None:
        solution = mediapipe_solution("face_detection")
        with without_native_logs():
            self._network = solution.FaceDetection(
                model_selection=int(is_far), min_detection_confidence=MIN_DETECTION_CONFIDENCE
            )
            self._network.process(_WARM_UP_FRAME)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> list[tuple[float, Box]]:
        """Score (0 to 1) and box in pixels of each face; a box may exceed the image."""
        with without_native_logs():
            result = self._network.process(np.ascontiguousarray(image))
        height, width = image.shape[:2]
        found = []
        for detection in result.detections or []:
            area = detection.location_data.relative_bounding_box
            x1, y1 = area.xmin * width, area.ymin * height
            found.append((float(detection.score[0]), (x1, y1, x1 + area.width * width, y1 + area.height * height)))
        return found

    def close(self) -> None:
        self._network.close()


class FaceMesh:
    """MediaPipe's FaceMesh for one face in a video, with refined lips and eyes."""

    def __init__(self) -> None:
        solution = mediapipe_solution("face_mesh")
        with without_native_logs():
            self._network = solution.FaceMesh(
                static_image_mode=False,
                max_num_faces=1,
                refine_landmarks=True,
                min_detection_confidence=MIN_DETECTION_CONFIDENCE,
                min_tracking_confidence=MIN_TRACKING_CONFIDENCE,
            )
            self._network.process(_WARM_UP_FRAME)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "468 3"] | None:
        """Landmarks in pixels of the image, z at the scale of x; None if no face is found."""
        with without_native_logs():
            result = self._network.process(np.ascontiguousarray(image))
        if not result.multi_face_landmarks:
            return None
        height, width = image.shape[:2]
        points = result.multi_face_landmarks[0].landmark[:N_LANDMARKS]
        normalised = np.array([(p.x, p.y, p.z) for p in points], np.float32)
        return normalised * np.array([width, height, width], np.float32)

    def reset(self) -> None:
        """Forget the face that was followed."""
        with without_native_logs():
            self._network.reset()
            self._network.process(_WARM_UP_FRAME)

    def close(self) -> None:
        self._network.close()


def mediapipe_solution(name: str) -> Any:
    """One of SOLUTIONS. Where another thread is loading it, this waits."""
    module = f"mediapipe.python.solutions.{name}"
    if module in sys.modules:
        return importlib.import_module(module)
    with in_place_of({plots: ModuleType(plots) for plots in ("matplotlib", "matplotlib.pyplot")}):
        return importlib.import_module(module)


@contextlib.contextmanager
def without_native_logs() -> Iterator[None]:
    """Silence file descriptor 2, to which MediaPipe's C++ code writes notices at any log level.

    For one thread at a time; Python messages of other threads are held back until it ends.
    """
    with cli.holding_messages():
        sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # stderr is closed
            yield
            return
        try:
            with Path(os.devnull).open("w") as nothing:
                os.dup2(nothing.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
