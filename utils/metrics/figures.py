"""Table of the figures that an evaluation reports: name, metric, unit, better direction, meaning."""

from __future__ import annotations

from dataclasses import dataclass

HIGHER, LOWER, NEITHER = "higher", "lower", ""


@dataclass(frozen=True)
class Figure:
    """One row of a report. ``beside``: name of its floor, ceiling or reference value."""

    name: str
    metric: str
    unit: str
    better: str
    meaning: str
    beside: str = ""


EYES = "% of the eye distance"  # between the outer corners
GREY = "grey levels"
FIGURES = (
    Figure("psnr", "psnr", "dB", HIGHER, "lower face, mean of the frames' PSNR (60 at most)", "psnr_still"),
    Figure("psnr_still", "psnr", "dB", NEITHER, "floor: the lower face of the clip's first frame shown throughout"),
    Figure("ssim", "ssim", "", HIGHER, "lower face, mean of the frames' SSIM", "ssim_still"),
    Figure("ssim_still", "ssim", "", NEITHER, "floor: the lower face of the clip's first frame shown throughout"),
    Figure("lpips", "lpips", "", LOWER, "lower face, LPIPS 0.1 on AlexNet"),
    Figure("lmd", "lmd", EYES, LOWER, "mean distance of the 40 points on the lips' contours", "lmd_still"),
    Figure("lmd_still", "lmd", EYES, NEITHER, "floor: the reference's moving head with its mean mouth"),
    Figure("opening_r", "opening", "", HIGHER, "r of the lips' opening with the reference's, best within ±2 frames"),
    Figure("opening_lag", "opening", "frames", NEITHER, "lag of the highest such r within ±9 frames; > 0: lips late"),
    Figure("opening_amount", "opening", "", NEITHER, "spread: deviation of the opening over the reference's"),
    Figure("width_r", "width", "", HIGHER, "r of the mouth's width with the reference's, best within ±2 frames"),
    Figure("width_amount", "width", "", NEITHER, "spread: deviation of the width over the reference's"),
    Figure(
        "closure_precision",
        "closures",
        "",
        HIGHER,
        "share of closed frames that are closed within ±1 frame of the reference",
        "closure_precision_chance",
    ),
    Figure("closure_precision_chance", "closures", "", NEITHER, "floor: of any frames"),
    Figure(
        "closure_recall",
        "closures",
        "",
        HIGHER,
        "share of the reference's closed frames that are closed within ±1 frame",
        "closure_recall_chance",
    ),
    Figure("closure_recall_chance", "closures", "", NEITHER, "floor: of any frames"),
    Figure("detail", "detail", "", NEITHER, "laplacian over laplacian_ref; 1: as sharp as the source"),
    Figure(
        "laplacian", "detail", GREY, NEITHER, "deviation of the Laplacian in the redrawn lower face", "laplacian_ref"
    ),
    Figure("laplacian_ref", "detail", GREY, NEITHER, "the same of the reference"),
    Figure("upper_drift", "upper_drift", GREY, LOWER, "mean change of pixels above the box's middle", "upper_codec"),
    Figure("upper_codec", "upper_drift", GREY, NEITHER, "floor: what encoding the reference anew changes there"),
    Figure(
        "upper_excess", "upper_drift", GREY, LOWER, "upper_drift less upper_codec in the first 50 frames; 0: untouched"
    ),
    Figure("jitter_speech", "jitter", EYES, LOWER, "second difference of the lips in speech", "jitter_speech_ref"),
    Figure("jitter_speech_ref", "jitter", EYES, NEITHER, "the same of the reference, in its own speech"),
    Figure("jitter_silence", "jitter", EYES, LOWER, "second difference of the lips in silence", "jitter_silence_ref"),
    Figure("jitter_silence_ref", "jitter", EYES, NEITHER, "the same of the reference, in its own silence"),
    Figure(
        "jitter_face",
        "jitter",
        EYES,
        LOWER,
        "second difference of forehead, eyes and bridge of the nose",
        "jitter_face_ref",
    ),
    Figure("jitter_face_ref", "jitter", EYES, NEITHER, "the same of the reference"),
    Figure("av_r", "av", "", HIGHER, "agreement of mouth and sound, best lag within ±9 frames", "av_r_real"),
    Figure("av_r_real", "av", "", NEITHER, "ceiling: the reference with its own sound"),
    Figure("av_r_wrong", "av", "", NEITHER, "floor: wrong sounds; the best of 19 lags is not 0 even by chance"),
    Figure("av_r_sync", "av", "", HIGHER, "agreement of mouth and sound at lag 0", "av_r_sync_real"),
    Figure("av_r_sync_real", "av", "", NEITHER, "ceiling: the reference with its own sound"),
    Figure("av_r_sync_wrong", "av", "", NEITHER, "floor: wrong sounds"),
    Figure("av_opening_r", "av", "", HIGHER, "r of opening and sound at the lag of av_r", "av_opening_r_real"),
    Figure("av_opening_r_real", "av", "", NEITHER, "ceiling: the reference with its own sound"),
    Figure("av_width_r", "av", "", HIGHER, "r of width and sound at the lag of av_r", "av_width_r_real"),
    Figure("av_width_r_real", "av", "", NEITHER, "ceiling: the reference with its own sound"),
    Figure("av_lag", "av", "frames", NEITHER, "lag of av_r; > 0: lips later than sound", "av_lag_real"),
    Figure("av_lag_real", "av", "frames", NEITHER, "the same of the reference with its own sound"),
    Figure(
        "av_log_mel_r",
        "av_log_mel",
        "",
        NEITHER,
        "the former av_r: r of opening and sound by a model on log-mel bands",
        "av_log_mel_r_real",
    ),
    Figure("av_log_mel_r_real", "av_log_mel", "", NEITHER, "ceiling: the reference with its own sound"),
    Figure("av_log_mel_r_wrong", "av_log_mel", "", NEITHER, "floor: wrong sounds"),
    Figure("silence", "silence", "", LOWER, "variance of the opening in silence over that in speech", "silence_ref"),
    Figure("silence_ref", "silence", "", NEITHER, "the same of the reference, with its own sound"),
    Figure("lse_c", "lse", "", HIGHER, "SyncNet's confidence: median less minimum over the offsets", "lse_c_ref"),
    Figure("lse_c_ref", "lse", "", NEITHER, "the same of the reference with its own sound"),
    Figure("lse_d", "lse", "", LOWER, "SyncNet's minimum distance over the offsets", "lse_d_ref"),
    Figure("lse_d_ref", "lse", "", NEITHER, "the same of the reference with its own sound"),
    Figure("lse_offset", "lse", "frames", NEITHER, "offset of that minimum; > 0: the sound comes early"),
    Figure("fid", "fid", "", LOWER, "Fréchet Inception distance of the lower faces of all frames"),
)
BY_NAME = {figure.name: figure for figure in FIGURES}
METRICS = tuple(dict.fromkeys(figure.metric for figure in FIGURES))
NEEDS_WEIGHTS = {"lpips": "--lpips_weights", "fid": "--inception_weights", "lse": "--syncnet_weights"}
