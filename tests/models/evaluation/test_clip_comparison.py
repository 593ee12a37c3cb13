"""clip_comparison.py and clip_figures.py on synthetic motion of a real face with known values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.evaluation.clip_comparison import WORST_APART, Instruments, LowerFaceFeatures, compare_frames, of_one_size
from models.evaluation.clip_figures import (
    ClipSound,
    PredictedCurves,
    agreement_figures,
    frame_curves,
    jitter_figures,
    mouth_figures,
    picture_figures,
)
from models.evaluation.clip_figures import silence_figures as silence_of
from models.evaluation.inception import frechet_distance
from tests.helpers.media import portrait
from tests.helpers.sounds import speech
from utils.core.types import TrackedFace
from utils.imaging.geometry import landmarks_68
from utils.media.video import VideoWriter, read_frames
from utils.metrics.codec_noise import N_FRAMES, CodecNoise
from utils.metrics.image_quality import PSNR_CAP, redrawn_region, upper_pixels

SIZE = 96
BOX = (20, 16, 76, 80)  # box of the landmarks below: nose bridge at 48, chin at 80


class ScriptedTracker:
    """A tracker that returns the face with ``openings[t]`` in frame t; None where it is NaN."""

    def __init__(self, openings: np.ndarray) -> None:
        self._openings = iter(openings)

    def __call__(self, frame: np.ndarray) -> TrackedFace | None:
        opening = next(self._openings)
        return None if np.isnan(opening) else made_face(opening)

    def __enter__(self) -> ScriptedTracker:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def made_face(opening: float) -> TrackedFace:
    """Outer eye corners 40 px apart, inner lips ``opening`` px, corners of the mouth 24 - ``opening`` px."""
    rng = np.random.default_rng(0)
    landmarks = np.column_stack([rng.uniform(30, 66, 468), rng.uniform(40, 70, 468), np.zeros(468)]).astype(np.float32)
    landmarks[[33, 263], :2] = [[28, 40], [68, 40]]
    landmarks[13, :2], landmarks[14, :2] = (48, 62), (48, 62 + opening)
    landmarks[61, :2], landmarks[291, :2] = (36 + opening, 63), (60, 63)
    landmarks[4, :2] = (48, 52)
    points = landmarks_68(landmarks[:, :2]).copy()
    points[:, 0] = points[:, 0].clip(BOX[0], BOX[2])
    points[0], points[16], points[8], points[29] = (BOX[0], 50), (BOX[2], 50), (48, BOX[3]), (48, 48)
    return TrackedFace(landmarks, points)


def tools(reference: np.ndarray, generated: np.ndarray, **changes: object) -> Instruments:
    return Instruments(ScriptedTracker(reference), ScriptedTracker(generated), **changes)


def frames_of(n: int) -> list[np.ndarray]:
    return [np.roll(portrait(SIZE), t % 3, axis=1) for t in range(n)]


def with_lower_change(frame: np.ndarray, amount: int) -> np.ndarray:
    changed = frame.astype(int)
    changed[48:] += amount
    return changed.clip(0, 255).astype(np.uint8)


def test_a_clip_against_itself():
    openings = 3 + 2 * np.sin(np.arange(30))
    found = compare_frames(frames_of(30), frames_of(30), tools(openings, openings))
    curves = frame_curves(found)
    figures = picture_figures(found, curves) | mouth_figures(curves)
    assert figures["psnr"] == PSNR_CAP
    assert figures["ssim"] == pytest.approx(1)
    assert (figures["lmd"], figures["upper_drift"], figures["opening_lag"]) == (0, 0, 0)
    for name in (
        "opening_r",
        "opening_amount",
        "width_r",
        "width_amount",
        "closure_precision",
        "closure_recall",
        "detail",
    ):
        assert figures[name] == pytest.approx(1), name
    assert 0 < figures["closure_precision_chance"] == figures["closure_recall_chance"] < 1
    assert figures["laplacian"] == figures["laplacian_ref"] > 1
    assert figures["psnr_still"] < 35
    assert figures["lmd_still"] > 0
    assert np.isnan(found.pixels["psnr_still"][0])  # the first frame is the floor itself
    assert np.isnan(figures["lpips"])


def test_a_mouth_of_half_the_movement():
    openings = 3 + 2 * np.sin(np.arange(60) / 2)
    found = compare_frames(frames_of(60), frames_of(60), tools(openings, np.roll(3 + (openings - 3) / 2, 1)))
    figures = mouth_figures(frame_curves(found))
    assert [figures[f"{name}_amount"] for name in ("opening", "width")] == pytest.approx([0.5, 0.5], abs=0.01)
    assert [figures[f"{name}_r"] for name in ("opening", "width")] == pytest.approx([1, 1], abs=1e-3)
    assert figures["opening_lag"] == 1
    assert figures["closure_precision"] > 0.7 > figures["closure_precision_chance"]


def test_detail_is_that_of_the_redrawn_region():
    real = frames_of(12)
    still = np.full(12, 3.0)
    smooth = [cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in real]
    found = compare_frames(real, smooth, tools(still, still))
    assert picture_figures(found, frame_curves(found))["detail"] < 0.6
    box, region = redrawn_region(made_face(3.0).landmarks[:, :2], (SIZE, SIZE))
    assert region.any()
    inside = [frame.copy() for frame in real]
    for frame, blurred in zip(inside, smooth, strict=True):  # all but the region, and one pixel about it
        outside = np.ones((SIZE, SIZE), bool)
        outside[box[1] : box[3], box[0] : box[2]] = ~cv2.dilate(region.astype(np.uint8), np.ones((3, 3))).astype(bool)
        frame[outside] = blurred[outside]
    found = compare_frames(real, inside, tools(still, still))
    assert picture_figures(found, frame_curves(found))["detail"] == pytest.approx(1)


def test_only_the_lower_half_counts_below_and_the_upper_above():
    real = frames_of(12)
    still = np.full(12, 3.0)
    lower = compare_frames(real, [with_lower_change(frame, 30) for frame in real], tools(still, still))
    assert lower.pixels["psnr"].max() < 25
    assert lower.pixels["upper_drift"].max() == 0
    upper = [frame.copy() for frame in real]
    for frame in upper:
        upper_pixels(frame, np.array(BOX))[:] //= 2
    changed = compare_frames(real, upper, tools(still, still))
    assert changed.pixels["psnr"].min() > 30
    assert changed.pixels["upper_drift"].min() > 10


def test_frames_without_a_face_are_left_out():
    openings = 3 + 2 * np.sin(np.arange(20))
    faceless = openings.copy()
    faceless[5:8] = np.nan
    found = compare_frames(frames_of(20), frames_of(20), tools(faceless, openings))
    assert np.flatnonzero(np.isnan(found.pixels["psnr"])).tolist() == [5, 6, 7]
    lost = compare_frames(frames_of(20), frames_of(20), tools(openings, faceless))
    assert np.isfinite(lost.pixels["psnr"]).all()  # the box is the reference's
    assert np.flatnonzero(np.isnan(frame_curves(lost).lmd)).tolist() == [5, 6, 7]
    nothing = np.full(20, np.nan)
    blank = compare_frames(frames_of(20), frames_of(20), tools(nothing, openings))
    assert not blank.reference.valid.any()
    assert not blank.worst


def test_lengths_and_sizes_may_differ():
    still = np.full(30, 3.0)
    large = [np.kron(frame, np.ones((2, 2, 1), np.uint8)) for frame in frames_of(14)]
    found = compare_frames(frames_of(10), large, tools(still, still))
    assert (found.n, found.reference_size.n_frames, found.generated_size.n_frames) == (10, 10, 14)
    assert found.generated_size.size == (2 * SIZE, 2 * SIZE)
    assert found.pixels["psnr"].min() > 45  # halved again
    padded = np.pad(portrait(SIZE), ((0, 1), (0, 0), (0, 0)), mode="edge")
    real, made = of_one_size(portrait(SIZE), padded)
    assert real.shape == made.shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(real, made)


def test_worst_frames_are_the_worst_and_stand_apart():
    n = 80
    changes = np.ones(n, int)
    changes[[20, 21, 50]] = 40, 60, 50
    real = frames_of(n)
    made = [with_lower_change(frame, change) for frame, change in zip(real, changes, strict=True)]
    found = compare_frames(real, made, tools(np.full(n, 3.0), np.full(n, 3.0)))
    assert [bad.index for bad in found.worst[:2]] == [21, 50]
    indices = sorted(bad.index for bad in found.worst)
    assert min(np.diff(indices)) >= WORST_APART


def test_jitter_and_silence_are_told_apart_by_the_sound():
    """The mouth moves in the first half, where there is speech; the generated mouth throughout."""
    n = 60
    wobble = 3 + 2.0 * (-1) ** np.arange(n)
    real = np.where(np.arange(n) < 30, wobble, 3.0)
    sound = ClipSound(speech(n // 2), n)
    found = compare_frames(frames_of(n), frames_of(n), tools(real, wobble))
    figures = jitter_figures(found, sound, sound)
    assert figures["jitter_silence_ref"] == pytest.approx(0, abs=1e-4)
    assert figures["jitter_silence"] == pytest.approx(figures["jitter_speech"], rel=1e-3)
    assert figures["jitter_speech"] == pytest.approx(figures["jitter_speech_ref"], rel=1e-3)
    assert figures["jitter_face"] == 0
    quiet = silence_of(frame_curves(found), sound, sound)
    assert quiet["silence_ref"] == 0
    assert quiet["silence"] == pytest.approx(1, abs=0.1)


def test_without_sound_everything_is_silence():
    sound = ClipSound(None, 20)
    assert sound.activity.silence.all()
    found = compare_frames(frames_of(20), frames_of(20), tools(np.full(20, 3.0), np.full(20, 3.0)))
    assert np.isnan(silence_of(frame_curves(found), sound, sound)["silence"])
    assert agreement_figures("av", frame_curves(found), PredictedCurves(None, None), []) == {}


def test_wrong_sounds_are_other_sounds():
    rng = np.random.default_rng(0)
    opening = np.convolve(rng.normal(size=203), np.ones(4), "valid")
    found = compare_frames(frames_of(200), frames_of(200), tools(opening + 10, opening + 10))
    curves = frame_curves(found)
    own, other = curves.mouth + 0.01 * rng.normal(size=(200, 2)), rng.normal(size=(300, 2))
    figures = agreement_figures("av", curves, PredictedCurves(own, own), [other])
    assert (figures["av_r"] > 0.9, figures["av_lag"], figures["av_r_real"] > 0.9) == (True, 0, True)
    assert figures["av_r"] == pytest.approx((2 * figures["av_opening_r"] + figures["av_width_r"]) / 3)
    assert abs(figures["av_r_sync_wrong"]) < 0.2
    assert figures["av_r_wrong"] < 0.4
    # the same track beside another clip is not a wrong sound, nor is one that is too short
    alone = agreement_figures("av", curves, PredictedCurves(own, own), [])
    assert agreement_figures("av", curves, PredictedCurves(own, own), [own * 2, other[:20]]) == alone
    assert abs(alone["av_r_sync_wrong"]) < 0.3
    # a model of the opening alone has no figure of the width
    former = agreement_figures("av_log_mel", curves, PredictedCurves(own[:, :1], own[:, :1]), [])
    assert former.keys() == {"av_log_mel_r", "av_log_mel_r_real", "av_log_mel_r_wrong"}
    assert former["av_log_mel_r"] > 0.9


def test_codec_noise_is_what_encoding_changes(tmp_path):
    frames = [portrait(SIZE)] * (N_FRAMES + 10)
    box = np.array(BOX)
    with CodecNoise() as noise:
        for frame in frames:
            noise.add(frame, box)
        found = noise.measure()
    path = tmp_path / "again.mp4"
    with VideoWriter(path) as writer:
        for frame in frames[:N_FRAMES]:
            writer.write(frame)
    original = upper_pixels(frames[0], box).astype(int)
    wanted = [np.abs(upper_pixels(frame, box) - original).mean() for frame in read_frames(path)]
    assert found == pytest.approx(np.mean(wanted), abs=0.01)
    assert 0.1 < found < 8


def test_codec_noise_without_a_face_or_a_frame():
    with CodecNoise() as noise:
        assert np.isnan(noise.measure())
    with CodecNoise() as noise:
        noise.add(portrait(SIZE), None)
        assert np.isnan(noise.measure())
    with pytest.raises(KeyError), CodecNoise() as noise:
        noise.add(portrait(SIZE), None)
        raise KeyError


class CountingNetwork:
    """Replaces InceptionV3, which test_inception.py checks: every feature is the image's mean level."""

    def features(self, images: np.ndarray) -> np.ndarray:
        levels = images.reshape(len(images), -1).mean(axis=1)
        return np.repeat(levels[:, None], 3, axis=1)


def test_features_of_both_clips_are_gathered():
    features = LowerFaceFeatures(CountingNetwork())
    still = np.full(20, 3.0)
    real = frames_of(20)
    made = [with_lower_change(frame, 10) for frame in real]
    compare_frames(real, made, tools(still, still, features=features))
    assert features.generated.n == 16  # the rest is buffered
    features.flush()
    assert features.generated.n == features.reference.n == 20
    assert frechet_distance(features.generated, features.reference) > 50
