"""Face parsing against the reference (bisenet.npz)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.generation.face_parsing import FaceParsing, prepare_parsing_input


@pytest.fixture(scope="module")
def recording(parity):
    return parity("bisenet")


@pytest.fixture(scope="module")
def face_parsing(filled, tmp_path_factory) -> FaceParsing:
    """The filled 79999_iter.pth, opened as the real one is."""
    path = tmp_path_factory.mktemp("bisenet") / "79999_iter.pth"
    torch.save(filled("bisenet"), path)
    return FaceParsing.load(path)


@pytest.fixture(scope="module")
def images(recording) -> torch.Tensor:
    return prepare_parsing_input(recording["in_rgb"])[None]


def test_network_input(recording, images):
    step = images.shape[-1] // recording["in_preprocessed_sub"].shape[-1]
    np.testing.assert_allclose(images[0, :, ::step, ::step], recording["in_preprocessed_sub"], rtol=0, atol=1e-6)


def test_logits_and_classes(recording, face_parsing, images):
    with torch.no_grad():
        logits = face_parsing.network(images)[0].numpy()
    np.testing.assert_allclose(logits[:, 4::24, 4::24], recording["logits_sub"], rtol=0, atol=1e-4)
    decided = recording["near_tie"] == 0
    np.testing.assert_array_equal(logits.argmax(0)[decided], recording["argmax"][decided])


def test_auxiliary_logits(recording, face_parsing, images):
    with torch.no_grad():
        at_8, at_16 = face_parsing.network.auxiliary(images)
    np.testing.assert_allclose(at_8[0, :, 4::48, 4::48], recording["logits16_sub"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(at_16[0, :, 4::48, 4::48], recording["logits32_sub"], rtol=0, atol=1e-4)


def test_mask_of_a_crop_of_another_size(recording, face_parsing):
    mask = face_parsing(recording["in_small_rgb"])
    decided = recording["parsing_near_tie"] == 0
    np.testing.assert_array_equal(mask[decided], recording["parsing_mask_512"][decided])
