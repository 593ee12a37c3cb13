"""A photographed face tracked, reconstructed and rendered: landmarks, depth and alignment agree with the track."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.editing.clip_analysis import FaceAnalyser, ReconstructedClip, load_analyser, regress_coefficients
from models.editing.expression_edit import with_expression
from models.face3d.face_model import EXPRESSION, FaceModel
from models.face3d.rasterizer import choose_rasterizer
from models.face3d.recon_net import ReconNet
from models.tracking.face_tracker import MediaPipeTracker, track_face
from tests.helpers import media
from utils.core.errors import BadInput
from utils.core.types import N_LANDMARKS, FaceTrack
from utils.weights import packs

ROOT = Path(__file__).resolve().parents[3]
MINI_MODEL = ROOT / "pretrained_models" / "mini" / "face_model.safetensors"
SIZE = 240
N_FACES, N_BLANK = 6, 2


@pytest.fixture(scope="module")
def face_model() -> FaceModel:
    return FaceModel.load(MINI_MODEL)


@pytest.fixture(scope="module")
def analyser(face_model) -> FaceAnalyser:
    return FaceAnalyser(face_model, choose_rasterizer("cpu"))


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return [*media.face_frames(N_FACES, SIZE), *media.blank_frames(N_BLANK, SIZE)]


@pytest.fixture(scope="module")
def clip(analyser, frames) -> ReconstructedClip:
    with MediaPipeTracker() as tracker:
        return analyse(analyser, lambda: iter(frames), tracker)


def analyse(analyser: FaceAnalyser, frames, tracker) -> ReconstructedClip:
    return analyser.fit(track_face(frames(), tracker), frames, (SIZE, SIZE))


def render(clip: ReconstructedClip, analyser: FaceAnalyser, index: int):
    return analyser.render_face(clip.coeffs[index], clip.alignments[index], clip.track.boxes[index])


def test_one_set_of_coefficients_per_frame(clip):
    assert clip.coeffs.shape == (N_FACES + N_BLANK, 257)
    assert clip.coeffs.dtype == np.float32
    assert np.isfinite(clip.coeffs).all()
    assert len(clip.alignments) == len(clip.track) == N_FACES + N_BLANK
    assert clip.track.valid.tolist() == [True] * N_FACES + [False] * N_BLANK


def test_own_expression_lands_on_the_tracked_landmarks(clip, analyser):
    for index in range(N_FACES):
        box = clip.track.boxes[index]
        tracked = clip.track.landmarks[index, :, :2] - box[:2]
        distance = np.linalg.norm(render(clip, analyser, index).landmarks - tracked, axis=1)
        width = box[2] - box[0]
        assert distance.mean() < 0.015 * width
        assert distance.max() < 0.08 * width


def test_depth_covers_the_landmarks_and_nothing_else(clip, analyser):
    face = render(clip, analyser, 0)
    x1, y1, x2, y2 = clip.track.boxes[0]
    assert face.depth.shape == (y2 - y1, x2 - x1)
    assert face.depth.dtype == np.uint8
    rows, columns = np.nonzero(face.depth)
    low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    inside_low, inside_high = np.maximum(low, 0), np.minimum(high, (x2 - x1, y2 - y1))
    np.testing.assert_allclose((columns.min(), rows.min()), inside_low, atol=2)
    np.testing.assert_allclose((columns.max() + 1, rows.max() + 1), inside_high, atol=2)
    nose, cheek = face.landmarks[4].astype(int), face.landmarks[234].astype(int).clip(2)
    assert face.depth[nose[1], nose[0]] > face.depth[cheek[1], cheek[0] + 2]


def test_another_expression_moves_the_mouth_and_keeps_the_brow(clip, analyser):
    motion = np.zeros((3, 64), np.float32)
    motion[1, 0], motion[2, 0] = 2.0, -2.0
    coeffs = with_expression(clip.coeffs[[0, 0, 0]], motion)
    np.testing.assert_array_equal(coeffs[:, EXPRESSION], motion)
    np.testing.assert_array_equal(
        np.delete(coeffs, np.r_[EXPRESSION], axis=1)[0], np.delete(clip.coeffs[0], np.r_[EXPRESSION])
    )
    assert clip.coeffs[0, EXPRESSION].any()
    rendered = [analyser.render_face(row, clip.alignments[0], clip.track.boxes[0]) for row in coeffs]
    assert not np.array_equal(rendered[1].depth, rendered[2].depth)
    moved = np.linalg.norm(rendered[1].landmarks - rendered[2].landmarks, axis=1)
    assert moved.max() > 2


def test_upstream_puts_landmarks_a_pixel_of_the_crop_higher(clip, analyser):
    pack, cpu = packs.mini_pack(), torch.device("cpu")
    flips = [load_analyser(pack, cpu, faithful).flip for faithful in (True, False)]
    assert flips == [223, 224]
    ours, upstream = render(clip, analyser, 0), render(clip, replace(analyser, flip=223.0), 0)
    shift = ours.landmarks - upstream.landmarks
    np.testing.assert_allclose(shift[:, 1], 1 / clip.alignments[0].scale, rtol=1e-3)
    np.testing.assert_allclose(shift[:, 0], 0, atol=1e-4)
    np.testing.assert_array_equal(ours.depth, upstream.depth)


def test_clip_without_any_face(analyser):
    with MediaPipeTracker() as tracker:
        clip = analyse(analyser, lambda: media.blank_frames(3, SIZE), tracker)
    assert not clip.track.valid.any()
    assert clip.coeffs.shape == (3, 257)
    assert not clip.coeffs.any()


def test_landmarks_in_one_place_are_no_face(clip, analyser, frames):
    landmarks, five_points = clip.track.landmarks[:3].copy(), clip.track.five_points[:3].copy()
    landmarks[1], five_points[1] = 50.0, 50.0
    track = FaceTrack(landmarks, clip.track.boxes[:3], np.ones(3, bool), five_points)
    fitted = analyser.fit(track, lambda: iter(frames), (SIZE, SIZE))
    assert fitted.track.valid.tolist() == [True, False, True]
    assert np.isfinite(fitted.coeffs).all()
    assert track.valid.all()


def test_identity_is_one_for_the_whole_clip(clip):
    identity = clip.coeffs[:N_FACES, :80]
    np.testing.assert_array_equal(identity, np.tile(identity[0], (N_FACES, 1)))
    assert clip.track.landmarks.shape == (N_FACES + N_BLANK, N_LANDMARKS, 3)


@pytest.fixture(scope="module")
def recon() -> ReconNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ReconNet().eval()


def test_coefficients_come_from_the_aligned_crops(clip, analyser, frames, recon):
    fitted = replace(analyser, recon=recon).fit(clip.track, lambda: iter(frames), (SIZE, SIZE))
    crops = np.stack([clip.alignments[i].crop_image(frames[i]) for i in range(N_FACES)])
    np.testing.assert_allclose(fitted.coeffs[:N_FACES], recon.coefficients(crops), atol=1e-5)
    assert not fitted.coeffs[N_FACES:].any()
    assert np.array_equal(fitted.track.valid, clip.track.valid)
    assert not np.array_equal(fitted.coeffs[0], fitted.coeffs[1])


def test_a_frame_whose_coefficients_are_no_numbers_has_no_face(clip, analyser, frames, recon):
    class Broken(ReconNet):
        def coefficients(self, crops):
            found = recon.coefficients(crops)
            found[1] = np.nan
            return found

    fitted = replace(analyser, recon=Broken()).fit(clip.track, lambda: iter(frames), (SIZE, SIZE))
    assert fitted.track.valid.tolist() == [True, False] + [True] * (N_FACES - 2) + [False] * N_BLANK


def test_frames_are_reconstructed_a_few_at_a_time(clip, frames, recon):
    n_seen = []

    class Counting(ReconNet):
        def coefficients(self, crops):
            n_seen.append(len(crops))
            return np.zeros((len(crops), 257), np.float32)

    many = [frames[0]] * 20
    regress_coefficients(Counting(), many, [clip.alignments[0]] * 20, np.arange(20) != 3)
    assert n_seen == [8, 8, 3]


def test_the_coefficient_network_belongs_to_the_basel_model(tmp_path):
    pack = replace(packs.mini_pack(), recon=tmp_path / "epoch_20.pth")
    with pytest.raises(BadInput, match=r"ResNet-50 needs the Basel face model .*--recon fit"):
        load_analyser(pack, torch.device("cpu"))
