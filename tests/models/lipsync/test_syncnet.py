"""models/lipsync/syncnet.py and models/audio/speech_cepstrum.py: the public scripts' windows, distances and crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.audio.speech_cepstrum import mel_triangles, speech_cepstrum
from models.evaluation.lpips import Lpips
from models.lipsync.syncnet import MAX_OFFSET, SyncNet, cut_face, face_windows, score_embeddings
from tests.helpers.filled_weights import save_filled
from tests.helpers.media import smooth_picture, speech_like
from utils.core.errors import BadInput
from utils.core.types import SAMPLES_PER_FRAME

# Recorded with python_speech_features 0.6: mfcc(int16 samples of speech_like(0.5), 16000), by row.
RECORDED = {
    0: (12.8565, 2.0017, 5.4629, -9.4492, -13.4397, -7.3906, 7.2746, 15.2775, 13.9265, 5.3888, -0.6988, -1.732, 0.8291),
    20: (
        16.8079,
        -3.6603,
        2.8389,
        -9.4582,
        -11.5922,
        -7.7344,
        4.4096,
        11.8722,
        12.4405,
        6.273,
        1.4634,
        -0.3806,
        1.0043,
    ),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_filled(tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model", SyncNet(), "num_batches_tracked")


def test_cepstrum_equals_python_speech_features():
    wave = np.floor(speech_like(0.5) * 32768) / 32768
    found = speech_cepstrum(wave.astype(np.float32))
    assert found.shape == (49, 13)
    for row, coefficients in RECORDED.items():
        assert found[row] == pytest.approx(coefficients, abs=1e-3)


def test_triangles_stand_on_whole_bins():
    triangles = mel_triangles()
    assert triangles.shape == (26, 257)
    assert triangles.max(axis=1) == pytest.approx(1)
    assert triangles[:, 0].max() == 0


def test_short_and_silent_sounds_have_a_cepstrum():
    assert speech_cepstrum(np.zeros(100, np.float32)).shape == (1, 13)
    assert np.isfinite(speech_cepstrum(np.zeros(2000, np.float32))).all()


def test_state_dict_is_that_of_the_public_file():
    state = {key: tuple(value.shape) for key, value in SyncNet().state_dict().items()}
    assert state["netcnnlip.0.weight"] == (96, 3, 5, 7, 7)
    assert state["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    assert state["netcnnaud.18.weight"] == (512, 256, 5, 4)
    assert state["netfcaud.3.weight"] == state["netfclip.3.weight"] == (1024, 512)
    assert (
        len([key for key in state if not key.endswith("num_batches_tracked")]) == 88
    )  # 12 convolutions with norm, 2 projections


@pytest.mark.parametrize("delay", [-4, 0, 7])
def test_offset_is_found_and_scored(delay):
    sound = torch.from_numpy(np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32))
    lips = torch.roll(sound, delay, dims=0)
    lips[: max(delay, 0)] = sound[: max(delay, 0)] = 0
    score = score_embeddings(lips, sound)
    assert score.offset == delay
    distances = [
        torch.linalg.vector_norm(lips[t] - (sound[t + s] if 0 <= t + s < 60 else 0))
        for s in range(-MAX_OFFSET, MAX_OFFSET + 1)
        for t in range(60)
    ]
    means = np.array(distances).reshape(-1, 60).mean(axis=1)
    assert score.distance == pytest.approx(means.min(), abs=1e-3)
    assert score.confidence == pytest.approx(np.median(means) - means.min(), abs=1e-3)
    assert np.mean(score.frame_confidences) == pytest.approx(score.confidence, abs=1e-3)


def test_windows_do_not_depend_on_batches(weights):
    """Eight windows fit one batch: of 14 frames nine windows count, in two batches."""
    network = SyncNet.load(weights)
    crops = [smooth_picture(224, 224, seed) for seed in range(14)]
    wave = speech_like(1.0)[: 14 * SAMPLES_PER_FRAME]
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack(crops)[..., ::-1].copy()).permute(3, 0, 1, 2).float()
        lips = torch.cat([network.embed_lips(pixels[None, :, i : i + 5]) for i in range(9)])
        steps = torch.from_numpy(speech_cepstrum(wave))
        sound = torch.cat([network.embed_sound(steps[4 * i : 4 * i + 20].T[None, None]) for i in range(9)])
    wanted = score_embeddings(lips, sound)
    found = network.score(iter(crops), wave)
    assert found.offset == wanted.offset
    assert (found.confidence, found.distance) == pytest.approx((wanted.confidence, wanted.distance), abs=1e-4)


def test_too_few_frames_have_no_score(weights):
    network = SyncNet.load(weights)
    assert network.score([smooth_picture(224, 224)] * 5, speech_like(1.0)) is None
    assert network.score([smooth_picture(224, 224)] * 9, speech_like(0.1)) is None


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(BadInput, match="weights of another network"):
        SyncNet.load(save_filled(tmp_path / "lpips.pth", Lpips()))


def test_windows_are_steady_and_bridge_frames_without_a_face():
    landmarks = np.zeros((30, 468, 3), np.float32)
    landmarks[:, 1] = (40, 60, 0)
    landmarks[7, 1] = (400, 600, 0)  # an outlier
    valid = np.ones(30, bool)
    valid[20:23], landmarks[20:23] = False, 0
    windows = face_windows(landmarks, valid)
    np.testing.assert_array_equal(windows, np.tile([20, 30, 30], (30, 1)))
    with pytest.raises(ValueError, match="no frame"):
        face_windows(landmarks, np.zeros(30, bool))


def test_crop_shows_more_below_and_fills_the_outside():
    frame = np.zeros((200, 200, 3), np.uint8)
    frame[100:, :, 0] = 255  # from the centre down
    crop = cut_face(frame, np.array([100, 100, 50], np.float32))
    first_red = np.flatnonzero(crop[:, 112, 0] > 127)[0]
    assert first_red == pytest.approx(224 * 50 / 140, abs=1)  # the box's half of 1 + 1.8 halves
    corner = cut_face(frame, np.array([0, 0, 50], np.float32))
    assert (corner[:10, :10] == 110).all()
