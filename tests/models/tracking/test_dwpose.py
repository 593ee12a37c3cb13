"""DWPose: from the frame to the network's input and from its bins back to the frame, with a network that sees dots."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.tracking.dwpose import MIRRORED_68, DWPose, FrameWindow, decode_simcc
from tests.helpers.dot_network import COLOUR_WEIGHTS, IN_THE_LEFT, IN_THE_RIGHT, dotted, write_dot_network
from utils.core.errors import BadInput

NOSE = 30
FRAMES = {"landscape": (240, 135), "portrait": (150, 300), "square": (200, 200)}


@pytest.fixture(scope="module")
def network_path(tmp_path_factory) -> Path:
    return write_dot_network(tmp_path_factory.mktemp("dwpose") / "dw-ll_ucoco_384.onnx")


@pytest.fixture(scope="module")
def dwpose(network_path) -> DWPose:
    return DWPose.load(network_path, flip_test=False)


@pytest.fixture(scope="module")
def dwpose_with_flip(network_path) -> DWPose:
    return DWPose.load(network_path)


@pytest.mark.parametrize("size", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("at", [(0.5, 0.5), (0.2, 0.9), (0.93, 0.07)])
def test_a_dot_is_found_where_it_is(dwpose, dwpose_with_flip, size, at):
    dot = np.round(np.array(at) * size)
    frame = dotted(*size, {tuple(dot): 1.0})
    found = dwpose(frame)
    assert (found.points.shape, found.points.dtype, found.scores.dtype) == ((68, 2), np.float32, np.float32)
    assert np.abs(found.points - dot).max() <= 1
    assert np.abs(dwpose_with_flip(frame).points - dot).max() <= 1
    assert found.scores[NOSE] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("channel", "score"), list(enumerate(COLOUR_WEIGHTS)))
def test_the_network_is_given_red_green_blue(dwpose, channel, score):
    found = dwpose(dotted(200, 200, {(100, 100): 1.0}, colour=np.eye(3)[channel]))
    assert found.scores[NOSE] == pytest.approx(score, rel=0.03)


def test_left_and_right_survive_the_mirror(dwpose, dwpose_with_flip):
    left, right, middle = (60, 40), (170, 90), (110, 60)
    frame = dotted(240, 135, {left: 0.95, right: 0.95, middle: 1.0}, size=3)
    for network in (dwpose, dwpose_with_flip):
        points = network(frame).points
        assert np.abs(points[IN_THE_LEFT] - left).max() <= 1
        assert np.abs(points[IN_THE_RIGHT] - right).max() <= 1
        assert np.abs(points[NOSE] - middle).max() <= 1


def test_flip_test_is_the_mean_with_the_mirrored_frame(dwpose, dwpose_with_flip):
    # Of a symmetric frame both views say the same, but for the half pixel that mmpose leaves between them.
    frame = dotted(200, 200, {(60, 80): 0.9, (139, 80): 0.9})
    plain, averaged = dwpose(frame), dwpose_with_flip(frame)
    half_pixel = FrameWindow(200, 200).pixel / 2
    assert np.abs(averaged.points[[IN_THE_LEFT, IN_THE_RIGHT]] - plain.points[[IN_THE_LEFT, IN_THE_RIGHT]]).max() <= (
        half_pixel + 1e-4
    )
    mirrored = dwpose_with_flip(np.ascontiguousarray(frame[:, ::-1]))
    np.testing.assert_allclose(mirrored.scores, averaged.scores[MIRRORED_68], rtol=0.02)


def test_mirrored_order_is_its_own_inverse_and_swaps_sides():
    np.testing.assert_array_equal(MIRRORED_68[MIRRORED_68], np.arange(68))
    pairs = {0: 16, 17: 26, 21: 22, 31: 35, 36: 45, 39: 42, 41: 46, 48: 54, 59: 55, 60: 64, 67: 65}
    assert {index: int(MIRRORED_68[index]) for index in pairs} == pairs
    middle = [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert MIRRORED_68[middle].tolist() == middle


@pytest.mark.parametrize(
    ("size", "window"), [((1920, 1080), (2400, 3200)), ((1080, 1920), (1800, 2400)), ((600, 800), (750, 1000))]
)
def test_window_is_mmposes(size, window):
    """mmpose: 1.25 x the frame, the shorter side lengthened to 3:4, three points of it to the input's (float32)."""
    ours = FrameWindow(*size)
    assert ours.pixel * 288 == pytest.approx(window[0])
    assert ours.pixel * 384 == pytest.approx(window[1])
    centre = np.array(size) / 2
    source = np.array([centre, centre - (0, window[0] / 2), centre - (window[0] / 2, window[0] / 2)], np.float32)
    target = np.array([(144, 192), (144, 48), (0, 48)], np.float32)
    np.testing.assert_allclose(ours.to_source(target), source, atol=1e-3)
    frame = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    expected = cv2.warpAffine(frame, cv2.getAffineTransform(source, target), (288, 384), flags=cv2.INTER_LINEAR)
    difference = np.abs(ours.crop(frame).astype(int) - expected)
    assert (difference > 0).mean() < 0.001  # positions are rounded to 1/32 px, a hair's breadth may decide
    assert expected[:20].max() == 0 and expected[192].any()


def test_decoding_takes_the_first_highest_bin_and_the_lower_height():
    x, y = np.zeros((3, 6), np.float32), np.zeros((3, 8), np.float32)
    x[0, 4], y[0, 7] = 0.9, 0.5
    x[1, 2:4], y[1, 1] = 0.3, 0.6
    y[2, 3] = 1.0  # nothing along x
    bins, scores = decode_simcc(x, y)
    assert bins.tolist() == [[4, 7], [2, 1], [-1, -1]]
    np.testing.assert_allclose(scores, [0.5, 0.3, 0])


def test_nothing_to_see_is_not_found(dwpose):
    assert (dwpose(np.zeros((90, 160, 3), np.uint8)).scores <= 0).all()


def test_the_same_frame_gives_the_same_points(network_path, dwpose_with_flip):
    frame = dotted(160, 120, {(30, 50): 1.0, (90, 100): 0.8})
    first, second = dwpose_with_flip(frame), DWPose.load(network_path)(frame)
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.scores, second.scores)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"no network at all " * 20, "unreadable network"),
        (bytes(range(256)) * 8, "unreadable network"),
    ],
)
def test_files_that_are_no_network(tmp_path, content, found):
    path = tmp_path / "dw-ll_ucoco_384.onnx"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=found):
        DWPose.load(path)


def test_cut_short(tmp_path, network_path, capfd):
    content = network_path.read_bytes()
    for length in (100, len(content) // 2, len(content) - 100):
        path = tmp_path / "cut.onnx"
        path.write_bytes(content[:length])
        with pytest.raises(BadInput, match="unreadable network"):
            DWPose.load(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ({"n_keypoints": 17}, r"'simcc_x': \(1, 17, 576\)"),
        ({"height": 256}, "256"),
        ({"outputs": ("x", "y")}, r"outputs \['x', 'y'\]"),
    ],
)
def test_networks_of_another_form(tmp_path, form, found):
    path = write_dot_network(tmp_path / "other.onnx", **form)
    with pytest.raises(BadInput, match=rf"another network than dw-ll_ucoco_384 .*found .*{found}"):
        DWPose.load(path)


def test_checkpoint_of_mmpose(tmp_path, network_path):
    checkpoint = tmp_path / "dw-ll_ucoco_384.pth"
    checkpoint.write_bytes(b"pickle")
    with pytest.raises(BadInput, match=r"dw-ll_ucoco_384.onnx beside it.*--only dwpose"):
        DWPose.load(checkpoint)
    checkpoint.with_suffix(".onnx").write_bytes(network_path.read_bytes())
    assert DWPose.load(checkpoint)(dotted(96, 96, {(48, 48): 1.0})).scores[NOSE] > 0
    with pytest.raises(BadInput, match="file missing"):
        DWPose.load(tmp_path / "none.onnx")
