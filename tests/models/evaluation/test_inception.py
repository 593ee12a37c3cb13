"""models/evaluation/inception.py: the public network's numbers, and the Fréchet distance."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.inception import N_FEATURES, FeatureStatistics, InceptionV3, frechet_distance
from models.evaluation.lpips import Lpips
from tests.helpers.filled_weights import save_filled
from tests.helpers.media import smooth_picture
from utils.core.errors import BadInput

# Recorded with torchvision's Inception3 (0.29.2, its pools patched as pytorch-fid does) under the same filled weights.
RECORDED = {0: 0.14890048, 500: 0.0, 2047: 0.05591943}
RECORDED_SUM = 151.27031


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_filled(tmp_path_factory.mktemp("inception") / "pt_inception.pth", InceptionV3(), "num_batches_tracked")


def test_features_equal_the_public_network(weights):
    (features,) = InceptionV3.load(weights).features(smooth_picture(256, 128)[None])
    assert features.shape == (N_FEATURES,)
    assert [features[index] for index in RECORDED] == pytest.approx(list(RECORDED.values()), abs=1e-5)
    assert features.sum() == pytest.approx(RECORDED_SUM, abs=1e-2)


def test_other_weights_are_refused(tmp_path):
    path = save_filled(tmp_path / "lpips.pth", Lpips())
    with pytest.raises(BadInput, match="weights of another network"):
        InceptionV3.load(path)


def statistics_of(samples: np.ndarray, batch: int = 7) -> FeatureStatistics:
    statistics = FeatureStatistics()
    for start in range(0, len(samples), batch):
        statistics.add(samples[start : start + batch])
    return statistics


def test_statistics_do_not_depend_on_batches():
    samples = np.random.default_rng(0).normal(3, 2, (40, 5))
    statistics = statistics_of(samples)
    np.testing.assert_allclose(statistics.mean, samples.mean(axis=0))
    np.testing.assert_allclose(statistics.covariance, np.cov(samples, rowvar=False))


def test_distance_of_known_gaussians():
    """In one dimension the distance is (m1 - m2)² + (s1 - s2)²."""
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(500, 1))
    samples = (samples - samples.mean()) / samples.std(ddof=1)
    assert frechet_distance(statistics_of(samples), statistics_of(3 * samples + 5)) == pytest.approx(25 + 4)


def test_distance_equals_the_matrix_root():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(60, 6)), rng.normal(1, 2, (60, 6)) @ rng.normal(size=(6, 6))
    c1, c2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = sqrtm(c1 @ c2).real
    wanted = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(statistics_of(first), statistics_of(second)) == pytest.approx(wanted)


def test_distance_to_itself_is_zero_also_with_few_samples():
    few = statistics_of(np.random.default_rng(3).normal(size=(5, 30)))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-4)


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="two samples"):
        _ = statistics_of(np.ones((1, 3))).covariance
