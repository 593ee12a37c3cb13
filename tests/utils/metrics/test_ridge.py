"""Ridge regression recovers a linear relation, and none in noise."""

from __future__ import annotations

import numpy as np

from utils.metrics.ridge import ridge_predictions


def test_a_delayed_feature_is_found() -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(300, 4)) for _ in range(5)]
    curves = [np.roll(clip[:, 2], 3) + 7 for clip in features]
    (predicted,) = ridge_predictions(features[:4], curves[:4], features[4:])
    assert np.corrcoef(predicted, curves[4])[0, 1] > 0.95


def test_noise_predicts_nothing() -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(300, 4)) for _ in range(5)]
    curves = [rng.normal(size=300) for _ in range(5)]
    (predicted,) = ridge_predictions(features[:4], curves[:4], features[4:])
    assert abs(np.corrcoef(predicted, curves[4])[0, 1]) < 0.3
