"""Small ONNX networks with DWPose's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper, save

WIDTH, HEIGHT, N_KEYPOINTS, FIRST_FACE_POINT = 288, 384, 133, 23
IN_THE_LEFT, IN_THE_RIGHT = 36, 45  # of the 68: points that go to the dots nearest to the left and right edge
FLAT_RGB = (123.675, 116.28, 103.53)  # a colour that normalises to 0
STD = (58.395, 57.12, 57.375)
COLOUR_WEIGHTS = (0.5, 0.3, 0.2)  # what full red, green and blue add to the score


def write_dot_network(
    path: Path, n_keypoints: int = N_KEYPOINTS, height: int = HEIGHT, outputs: tuple[str, str] = ("simcc_x", "simcc_y")
) -> Path:
    """Image [batch, 3, height, 288] → one SimCC row per key point, highest at a bright dot.

    White scores 1, FLAT_RGB and what is darker 0. Key points look for the brightest spot, but IN_THE_LEFT and
    IN_THE_RIGHT prefer dots on their side, so that they change places in a mirror as a face's points do.
    """
    ramp = np.linspace(1, 0.5, WIDTH, dtype=np.float32)
    preference = np.stack([ramp, np.ones_like(ramp), ramp[::-1]])[None, :, None, :]  # [1, 3, 1, 288]
    weights = np.array(COLOUR_WEIGHTS) * STD / (255 - np.array(FLAT_RGB))
    constants = {
        "colours": weights.astype(np.float32).reshape(1, 3, 1, 1),
        "preference": preference,
        "kind": kinds_of_keypoints()[:n_keypoints],
        "x_bins": doubling(WIDTH),
        "y_bins": doubling(height),
    }
    nodes = [
        helper.make_node("Conv", ["input", "colours"], ["signed"]),
        helper.make_node("Relu", ["signed"], ["brightness"]),
        helper.make_node("Mul", ["brightness", "preference"], ["preferred"]),
        helper.make_node("ReduceMax", ["preferred"], ["columns"], axes=[2], keepdims=0),
        helper.make_node("ReduceMax", ["preferred"], ["rows"], axes=[3], keepdims=0),
        helper.make_node("Gather", ["columns", "kind"], ["columns_of_points"], axis=1),
        helper.make_node("Gather", ["rows", "kind"], ["rows_of_points"], axis=1),
        helper.make_node("MatMul", ["columns_of_points", "x_bins"], [outputs[0]]),
        helper.make_node("MatMul", ["rows_of_points", "y_bins"], [outputs[1]]),
    ]
    shapes = {outputs[0]: ["batch", "n", 2 * WIDTH], outputs[1]: ["batch", "n", 2 * height]}
    return _save(path, nodes, constants, ["batch", 3, height, WIDTH], shapes)


def write_fixed_network(path: Path, points: np.ndarray, score: float | np.ndarray = 1.0) -> Path:
    """For any image: the face at ``points`` [68, 2], input pixels, in the nearest bins with ``score``."""
    bins = np.rint(2 * points).astype(int)
    face = slice(FIRST_FACE_POINT, FIRST_FACE_POINT + len(points))
    constants = {"zero": np.zeros(1, np.float32)}
    for axis, name, size in ((0, "simcc_x", 2 * WIDTH), (1, "simcc_y", 2 * HEIGHT)):
        constants[f"{name}_rows"] = np.zeros((1, N_KEYPOINTS, size), np.float32)
        constants[f"{name}_rows"][0, face][np.arange(len(points)), bins[:, axis]] = score
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["simcc_x_rows", "nothing"], ["simcc_x"]),
        helper.make_node("Add", ["simcc_y_rows", "nothing"], ["simcc_y"]),
    ]
    outputs = {name: [1, N_KEYPOINTS, 2 * size] for name, size in (("simcc_x", WIDTH), ("simcc_y", HEIGHT))}
    return _save(path, nodes, constants, [1, 3, HEIGHT, WIDTH], outputs)


def _save(
    path: Path,
    nodes: list[NodeProto],
    constants: dict[str, np.ndarray],
    input_shape: list[int | str],
    outputs: dict[str, list[int | str]],
) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def kinds_of_keypoints() -> np.ndarray:
    """0 for key points that prefer the left, 1 for those without preference, 2 for those that prefer the right."""
    kinds = np.ones(N_KEYPOINTS, np.int64)
    kinds[FIRST_FACE_POINT + IN_THE_LEFT] = 0
    kinds[FIRST_FACE_POINT + IN_THE_RIGHT] = 2
    return kinds


def doubling(n: int) -> np.ndarray:
    """[n, 2n]: bin 2i shows pixel i, bin 2i + 1 the mean of pixels i and i + 1."""
    bins = np.zeros((n, 2 * n), np.float32)
    pixel = np.arange(n)
    bins[pixel, 2 * pixel] = 1
    bins[pixel, 2 * pixel + 1] = 0.5
    bins[pixel[1:], 2 * pixel[:-1] + 1] = 0.5
    return bins


def dotted(
    width: int,
    height: int,
    dots: dict[tuple[float, float], float],
    size: float = 4.0,
    colour: Sequence[float] = (1, 1, 1),
) -> np.ndarray:
    """uint8 RGB frame with soft dots: (x, y) → brightness in 0..1. colour: which of red, green and blue they raise."""
    y, x = np.mgrid[:height, :width]
    light = np.zeros((height, width))
    for (at_x, at_y), brightness in dots.items():
        light = np.maximum(light, brightness * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * size**2)))
    flat = np.array(FLAT_RGB)
    return np.rint(flat + light[..., None] * colour * (255 - flat)).astype(np.uint8)
