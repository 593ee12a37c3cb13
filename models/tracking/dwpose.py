"""DWPose: 68 face points from a whole-body pose network, run by ONNX Runtime.

Network: Yang et al., "Effective Whole-body Pose Estimation with Two-stages Distillation" (2023), the file
dw-ll_ucoco_384.onnx (RTMPose-l, 133 key points, IDEA-Research/DWPose). Pre- and post-processing follow mmpose
1.x, which the original calls without a person box: mmpose then takes the whole frame for the person.

    source frame --FrameWindow.crop--> 288 x 384 input --network--> SimCC, half a pixel per bin
         ^------------------FrameWindow.to_source------------------ bins
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from utils.core.errors import BadInput
from utils.weights.checkpoints import require_real_file
from utils.weights.official_files import fetch_advice

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT_WIDTH, INPUT_HEIGHT = 288, 384
PADDING = 1.25  # the window over the person box (mmpose: GetBBoxCenterScale)
BINS_PER_PIXEL = 2  # of the input, along both axes
N_KEYPOINTS = 133  # of the whole body
FACE_KEYPOINTS = slice(23, 91)  # the 68 iBUG points among them
MEAN = np.array([123.675, 116.28, 103.53], np.float32)  # RGB, ImageNet
STD = np.array([58.395, 57.12, 57.375], np.float32)

# Index of each of the 68 points in the mirrored image.
MIRRORED_68 = np.array(
    [*range(16, -1, -1)]  # jaw
    + [*range(26, 16, -1)]  # brows
    + [27, 28, 29, 30, 35, 34, 33, 32, 31]  # nose
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]  # eyes
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55]  # outer lips
    + [64, 63, 62, 61, 60, 67, 66, 65]  # inner lips
)

_INPUT_SHAPE = (1, 3, INPUT_HEIGHT, INPUT_WIDTH)
_OUTPUT_SHAPES = {
    "simcc_x": (1, N_KEYPOINTS, INPUT_WIDTH * BINS_PER_PIXEL),
    "simcc_y": (1, N_KEYPOINTS, INPUT_HEIGHT * BINS_PER_PIXEL),
}
_ONNX_ADVICE = "python scripts/download_models.py --only dwpose puts dw-ll_ucoco_384.onnx there"


@dataclass(frozen=True)
class DWPoseFace:
    """points: float32 [68, 2], source-frame pixels, y down. scores: float32 [68], 1 is sure, 0 and less is not found.

    Points are on the grid of the network's bins, 1.25 · max(W, 0.75 · H) / 576 source pixels apart (4.2 in a frame of
    1920 x 1080), and as in mmpose a whole number is the middle of a pixel.
    """

    points: np.ndarray
    scores: np.ndarray


class DWPose:
    """Finds the 68 face points of one person; the person box is the whole frame."""

    def __init__(self, session: InferenceSession, flip_test: bool = True) -> None:
        self._session = session
        self._input_name = session.get_inputs()[0].name
        self._flip_test = flip_test

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu", flip_test: bool = True) -> DWPose:
        """Open a .onnx file; for a .pth, which only mmpose can run, the .onnx of the same name beside it.

        device: "cuda" takes effect with the package onnxruntime-gpu. flip_test: average with the network's output for
        the mirrored input, as in the original's config; without it a frame takes half the time.
        Raises BadInput for a file that is missing, damaged or another network.
        """
        if path.suffix != ".onnx":
            path = _onnx_beside(path)
        require_real_file(path)
        session = _open_session(path, torch.device(device))
        _require_form(session, path)
        return cls(session, flip_test)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> DWPoseFace:
        window = FrameWindow(frame.shape[1], frame.shape[0])
        normalised = (window.crop(frame) - MEAN) / STD
        batch = normalised.transpose(2, 0, 1)[None]
        simcc_x, simcc_y = self._face_bins(batch)
        if self._flip_test:
            mirrored_x, mirrored_y = self._face_bins(batch[..., ::-1])
            simcc_x = (simcc_x + mirrored_x[MIRRORED_68, ::-1]) / 2
            simcc_y = (simcc_y + mirrored_y[MIRRORED_68]) / 2
        bins, scores = decode_simcc(simcc_x, simcc_y)
        return DWPoseFace(window.to_source(bins / BINS_PER_PIXEL), scores)

    def _face_bins(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = self._session.run(list(_OUTPUT_SHAPES), {self._input_name: np.ascontiguousarray(batch)})
        simcc_x, simcc_y = (np.asarray(output)[0, FACE_KEYPOINTS] for output in outputs)
        return simcc_x, simcc_y


@dataclass(frozen=True)
class FrameWindow:
    """The network's view of a frame of ``width`` x ``height`` pixels.

    The frame and a margin (PADDING), made 3:4 by widening the shorter side; outside of the frame it is black.
    """

    width: int
    height: int

    @property
    def pixel(self) -> float:
        """Source pixels per input pixel."""
        return PADDING * max(self.width / INPUT_WIDTH, self.height / INPUT_HEIGHT)

    @property
    def corner(self) -> Float[np.ndarray, " 2"]:
        """Left and top in source pixels; negative."""
        return (np.array([self.width, self.height]) - self.pixel * np.array([INPUT_WIDTH, INPUT_HEIGHT])) / 2

    def crop(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "384 288 3"]:
        """Bilinear, without a filter against aliasing, like mmpose's TopdownAffine."""
        to_input = np.column_stack([np.eye(2), -self.corner]) / self.pixel
        return cv2.warpAffine(frame, to_input, (INPUT_WIDTH, INPUT_HEIGHT), flags=cv2.INTER_LINEAR)

    def to_source(self, points: Float[np.ndarray, "n 2"]) -> Float32[np.ndarray, "n 2"]:
        """Input pixels to source pixels."""
        return (points * self.pixel + self.corner).astype(np.float32)


def decode_simcc(
    simcc_x: Float[np.ndarray, "n x"], simcc_y: Float[np.ndarray, "n y"]
) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
    """The highest bin of each axis [n, 2] and the lower of their two heights [n]; (-1, -1) where that is not positive.

    (mmpose: codecs/utils/post_processing.py, get_simcc_maximum)
    """
    bins = np.stack([simcc_x.argmax(axis=-1), simcc_y.argmax(axis=-1)], axis=-1).astype(np.float32)
    scores = np.minimum(simcc_x.max(axis=-1), simcc_y.max(axis=-1)).astype(np.float32)
    bins[scores <= 0] = -1
    return bins, scores


def _onnx_beside(path: Path) -> Path:
    beside = path.with_suffix(".onnx")
    if beside.is_file():
        return beside
    found = path.name if path.exists() else "neither"
    raise BadInput("DWPose is run from its .onnx file", path, f"{beside.name} beside it", found, _ONNX_ADVICE)


def _open_session(path: Path, device: torch.device) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised as well
    providers: list[str | tuple[str, dict[str, int]]] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except _runtime_errors() as error:
        found = "a damaged file or one of another type"
        raise BadInput("unreadable network", path, "a complete .onnx file", found, fetch_advice(path)) from error


def _require_form(session: InferenceSession, path: Path) -> None:
    """Raise BadInput unless the network gives DWPose's outputs for DWPose's input. Runs it once."""
    inputs = session.get_inputs()
    names = sorted(item.name for item in session.get_outputs())
    found: dict[str, tuple[int, ...]] = {}
    if len(inputs) == 1 and set(_OUTPUT_SHAPES) <= set(names):
        found = _shapes_of_a_run(session, inputs[0].name)
        if found == _OUTPUT_SHAPES:
            return
    described = ", ".join(f"{item.type} {item.shape}" for item in inputs)
    raise BadInput(
        "another network than dw-ll_ucoco_384",
        path,
        f"an input {_INPUT_SHAPE} and outputs {_OUTPUT_SHAPES}",
        f"inputs {described} and outputs {found or names}",
        _ONNX_ADVICE,
    )


def _shapes_of_a_run(session: InferenceSession, input_name: str) -> dict[str, tuple[int, ...]]:
    """Output shapes by name; none if the network does not take the input."""
    try:
        outputs = session.run(list(_OUTPUT_SHAPES), {input_name: np.zeros(_INPUT_SHAPE, np.float32)})
    except _runtime_errors():
        return {}
    return {name: np.shape(output) for name, output in zip(_OUTPUT_SHAPES, outputs, strict=True)}


def _runtime_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's errors on damaged files and wrong inputs; the classes have no common base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    return (
        errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NoModel,
        errors.NotImplemented, errors.RuntimeException, ValueError,
    )  # fmt: skip
