"""Stage 3's own path, crop to face and back to the box (stage3_inputs.npz, stage3_outputs.npz)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.generation.face_crops import FaceEdit, SourceFrame, prepare_batches
from models.generation.talking_face import TalkingFace, generate_batches
from utils.imaging.geometry import resize_image
from utils.media.windows import stream_windows

N_FRAMES, BATCH_SIZE, IMAGE_SIZE = 6, 4, 256


@pytest.fixture(scope="module")
def talking_face(networks):
    return TalkingFace(*networks, IMAGE_SIZE)


def faces_of(talking_face: TalkingFace, inputs, pose_driven: bool) -> list[np.ndarray]:
    """Generated faces, BGR; every crop is a frame of its own that the box fills."""
    sources = []
    for i in range(N_FRAMES):
        image, landmarks = inputs[f"in_f{i}_face_bgr"][..., ::-1], inputs[f"in_f{i}_lm468"]
        box = np.array([0, 0, image.shape[1], image.shape[0]], np.int32)
        depth = inputs[f"in_f{i}_depth"] if pose_driven else None
        sources.append(SourceFrame(np.ascontiguousarray(image), FaceEdit(box, landmarks, landmarks, depth)))
    states = torch.from_numpy(inputs["in_whisper_feature"]).float()
    windows = stream_windows([states], N_FRAMES, batch_size=BATCH_SIZE)
    batches = generate_batches(prepare_batches(sources, (IMAGE_SIZE, IMAGE_SIZE), BATCH_SIZE), windows, talking_face)
    return [face.image[..., ::-1] for _, faces in batches for face in faces]


def assert_levels_close(found: np.ndarray, expected: np.ndarray) -> None:
    """±1 level, at most 0.5 % of values off."""
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.005


def test_faces_in_their_boxes(talking_face, parity):
    outputs = parity("stage3_outputs")
    faces = faces_of(talking_face, parity("stage3_inputs"), pose_driven=True)
    assert_levels_close(np.stack(faces), outputs["faces_bgr"])
    for i in (0, 2):
        expected = outputs[f"resized_frame{i}"]
        resized = resize_image(np.ascontiguousarray(faces[i]), expected.shape[1], expected.shape[0], "bilinear")
        assert_levels_close(resized, expected)


def test_without_depth(talking_face, parity):
    faces = faces_of(talking_face, parity("stage3_inputs"), pose_driven=False)
    assert_levels_close(faces[0], parity("stage3_outputs")["nopose_face0"])
