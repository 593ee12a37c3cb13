"""How each metric is measured, in words, for reports: crops, regions and offsets that published figures differ by."""

from __future__ import annotations

METHODS_OF_ALL = {
    "frames": "25 per second, in order, as many as both clips have; sound 16 kHz mono",
    "face box": "of each frame of the reference, not smoothed, the same for both clips; width of the face, "
    "bottom at the chin, middle at the bridge of the nose",
    "lower face": "lower half of that box resized to 256x256 (128 rows), RGB",
    "upper face": "pixels of the frame inside the box above its middle, not resized; upper_codec encodes the "
    "reference's first 50 frames anew (H.264, crf 18)",
    "speech and silence": "Silero's detector of speech; 2 frames at each change count as neither",
}

# metric, title, text
METHODS = (
    ("opening", "opening and width", "distance of the inner lips' middles, and of the mouth's corners, over the eyes'"),
    (
        "closures",
        "closures",
        "frames with an opening in the lowest quarter of the clip's own range, from the 5th to the 95th percentile",
    ),
    (
        "detail",
        "detail",
        "standard deviation of the luma's 3x3 Laplacian, in the frame's own pixels, where stage 3 replaces the "
        "reference's face entirely: in the hull of jaw, cheeks and upper lip, 0.08 of its width from the edge, without "
        "the nose; mean over the frames",
    ),
    (
        "av",
        "audio-visual agreement",
        "ridge regression from the states of a Whisper-tiny encoder in windows of ±3 frames to opening and width; "
        "two thirds r of the opening and one third r of the width, at one lag of ±9 frames; weights that leave out the "
        "clip's own speaker",
    ),
    (
        "av",
        "what agreement depends on",
        "the mini pack's motion follows the states of the same encoder, so that agreement is not independent of it; "
        "lip distance, opening, width and closures compare with the reference's lips, without any encoder",
    ),
    (
        "av_log_mel",
        "agreement on log-mel bands",
        "the former model: ridge regression from log-mel windows of ±8 frames to the opening, offsets ±9 frames, "
        "weights that leave out the clip's own speaker; for comparison with older reports",
    ),
    ("lse", "LSE", "SyncNet, crop from the landmarks' box (not S3FD) to 224 px, offsets ±15 frames"),
    ("fid", "FID crop", "lower face stretched to 299x299, pool features, both clips' frames"),
)
