"""utils/imaging/colour.py: the tint is removed, the mouth's detail kept."""

from __future__ import annotations

import numpy as np
import pytest

from utils.imaging.colour import match_colours


@pytest.fixture
def source() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 180, (6, 6, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((20, 20, 1), np.uint8))


@pytest.fixture
def known() -> np.ndarray:
    weights = np.ones((120, 120), np.float32)
    weights[70:110, 35:85] = 0.0
    return weights


def test_a_constant_tint_disappears_also_where_nothing_is_known(source, known) -> None:
    tinted = np.clip(source.astype(int) + [25, -10, 8], 0, 255).astype(np.uint8)
    corrected = match_colours(tinted, source, known)
    assert np.abs(corrected.astype(int) - source).max() <= 1


def test_what_the_generator_drew_inside_stays(source, known) -> None:
    face = source.copy()
    face[85:95, 50:70] = [200, 20, 20]  # new lips, inside the unknown part
    corrected = match_colours(face, source, known)
    assert np.abs(corrected[85:95, 50:70].astype(int) - face[85:95, 50:70]).max() <= 1


def test_nothing_known_changes_nothing(source) -> None:
    face = 255 - source
    assert np.array_equal(match_colours(face, source, np.zeros(face.shape[:2], np.float32)), face)


def test_no_wrap_around_at_white() -> None:
    face = np.full((32, 32, 3), 250, np.uint8)
    source = np.full((32, 32, 3), 255, np.uint8)
    half = np.ones((32, 32), np.float32)
    half[16:] = 0.0
    assert match_colours(face, source, half).min() >= 250
