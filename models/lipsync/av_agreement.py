"""Audio-visual agreement of mouth and sound by a linear model.

A ridge regression maps a window of a speech encoder's states to the opening of the inner lips and the width of the
mouth (av_fit.py fits it). It predicts both from the sound alone; the correlation of predicted and tracked curves, and
the lag at which it is highest, measure sync. Beside the weights of all speakers the model keeps, for each speaker, the
weights without that speaker, so that no speaker is scored by weights fitted on their own clips.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64

from models.audio.audio_features import fit_length
from models.audio.speech_encoder import SpeechEncoder
from utils.core.errors import BadInput
from utils.core.types import FEATURE_RATE, MOTION_FPS, SAMPLES_PER_FRAME
from utils.metrics.mouth_motion import (
    LaggedCorrelation,
    correlation,
    mouth_opening,
    mouth_width,
    overlapping,
)
from utils.weights.checkpoints import read_arrays, read_metadata, save_weights

CONTEXT = 3  # frames either way of which a frame's curves are predicted
CURVE_WEIGHTS = (2.0, 1.0)  # of opening and width in an agreement; chosen on clips of 2 to 3 s, see docs/mini_pack.md
N_CURVES = len(CURVE_WEIGHTS)
MAX_LAG = 9  # frames either way
MIN_FRAMES = 50  # of a score: 2 s
ALL_SPEAKERS = ""  # key of the weights fitted on all speakers
_ADVICE = "make one with python -m scripts.mini_pack.av_model"


@dataclass(frozen=True)
class AvModel:
    """A linear model from features of the sound, 25 per second, to curves of the mouth.

    projection [C, P]: features to components; weights by the speaker left out, each [K, P, O]: K frames around the
    predicted one, O curves; clips: speaker of every clip of the fit.
    """

    projection: np.ndarray
    weights: Mapping[str, np.ndarray]
    clips: Mapping[str, str]

    @classmethod
    def load(cls, path: Path) -> AvModel:
        """Raises BadInput for another file."""
        arrays = read_arrays(path)
        speakers, clips = read_speakers(path)
        try:
            weights, projection = arrays["weights"], arrays["projection"]
        except KeyError as error:
            raise not_a_model(path) from error
        expected = (len(speakers) + 1, 2 * CONTEXT + 1, *projection.shape[1:], N_CURVES)
        if weights.shape != expected or len(projection) != SpeechEncoder.n_channels:
            found = f"{weights.shape} and {projection.shape}"
            raise BadInput("model of audio-visual agreement of another shape", path, f"{expected}", found)
        return cls(projection, dict(zip([ALL_SPEAKERS, *speakers], weights, strict=True)), clips)

    def save(self, path: Path, notes: Mapping[str, str]) -> None:
        speakers = [speaker for speaker in self.weights if speaker != ALL_SPEAKERS]
        rows = np.stack([self.weights[speaker] for speaker in (ALL_SPEAKERS, *speakers)])
        tensors = {name: torch.from_numpy(a).half() for name, a in (("weights", rows), ("projection", self.projection))}
        save_weights(path, tensors, {"speakers": json.dumps(speakers), "clips": json.dumps(self.clips), **notes})

    def speaker_of(self, *names: str) -> str:
        """Speaker of the first of these clips that is in the fit; ALL_SPEAKERS if none is."""
        return next((self.clips[name] for name in names if name in self.clips), ALL_SPEAKERS)

    def predict(
        self, sound: Iterable[Float[np.ndarray, "t c"]], without: str = ALL_SPEAKERS
    ) -> Float64[np.ndarray, "n o"]:
        """Curves predicted from features that come in blocks, about 0, in units of a speaker's standard deviation.

        The clip's mean feature is subtracted, and there are zeros beyond its ends. Since the model is linear, that is
        done with every frame's share in its neighbours' curves, so that no features are kept:

            curves[t] = sum over k of (shares[t + k - CONTEXT, k] - mean of shares[:, k])
        """
        weights = self.weights[without].astype(np.float64)
        n_taps, n_components, n_curves = weights.shape
        matrix = self.projection.astype(np.float64) @ weights.transpose(1, 0, 2).reshape(n_components, -1)
        shares = np.concatenate([block @ matrix for block in sound]).reshape(-1, n_taps, n_curves)
        shares -= shares.mean(axis=0)
        padded = np.pad(shares, ((n_taps // 2, n_taps // 2), (0, 0), (0, 0)))
        return np.sum([padded[tap : tap + len(shares), tap] for tap in range(n_taps)], axis=0)


def read_speakers(path: Path) -> tuple[list[str], dict[str, str]]:
    """The left-out speakers of a model's file, and the speaker of every clip. Raises BadInput for another file."""
    try:
        metadata = read_metadata(path)
        return json.loads(metadata["speakers"]), json.loads(metadata["clips"])
    except (KeyError, ValueError, RecursionError) as error:
        raise not_a_model(path) from error


def not_a_model(path: Path) -> BadInput:
    return BadInput("not a model of audio-visual agreement", path, "weights and speakers", None, _ADVICE)


def encoder_features(
    encoder: SpeechEncoder, wave: Float[np.ndarray, " n"], n_frames: int
) -> Iterator[Float[np.ndarray, "t 768"]]:
    """Mean of the states of every video frame of a 16 kHz wave, 4 s at a time; silence beyond its end."""
    steps = FEATURE_RATE // MOTION_FPS
    for states in encoder.encode_chunks(fit_length(wave, n_frames * SAMPLES_PER_FRAME)):
        yield states.reshape(-1, steps, encoder.n_channels).mean(axis=1)


def mouth_curves(landmarks: Float[np.ndarray, "n 468 d"]) -> Float[np.ndarray, "n 2"]:
    """Opening and width of the mouth, in eye distances."""
    return np.stack([mouth_opening(landmarks), mouth_width(landmarks)], axis=1)


@dataclass(frozen=True)
class Agreement:
    """best: the highest agreement within MAX_LAG; lag > 0: the lips come later than the sound. in_sync: at lag 0.

    Agreement is the mean of the curves' correlations, weighted by CURVE_WEIGHTS; parts: each curve's, at the best lag.
    """

    best: LaggedCorrelation
    in_sync: float
    parts: tuple[float, ...]


def agreement(
    mouth: Float[np.ndarray, "t o"], predicted: Float[np.ndarray, "u o"], max_lag: int = MAX_LAG
) -> Agreement | None:
    """Compare the common frames of the curves; frames with an unknown value (NaN) are interpolated.

    None with fewer than MIN_FRAMES frames or known ones.
    """
    n = min(len(mouth), len(predicted))
    known = np.flatnonzero(np.isfinite(mouth[:n]).all(axis=1))
    if len(known) < MIN_FRAMES:
        return None
    pairs = [
        (np.interp(np.arange(n), known, tracked[known]), curve[:n])
        for tracked, curve in zip(mouth.T, predicted.T, strict=True)
    ]
    parts = {lag: _correlations(pairs, lag) for lag in range(-max_lag, max_lag + 1)}
    found = {lag: weighted_mean(values) for lag, values in parts.items()}
    lag = max(found, key=lambda key: (found[key], -abs(key)))
    return Agreement(LaggedCorrelation(found[lag], lag), found[0], parts[lag])


def _correlations(pairs: list[tuple[np.ndarray, np.ndarray]], lag: int) -> tuple[float, ...]:
    return tuple(correlation(*overlapping(tracked, curve, lag)) for tracked, curve in pairs)


def weighted_mean(correlations: tuple[float, ...]) -> float:
    """One figure of the correlations of opening and width, or of the opening alone."""
    return float(np.average(correlations, weights=CURVE_WEIGHTS[: len(correlations)]))


def rolled(predicted: Float[np.ndarray, "t o"]) -> list[Float[np.ndarray, "t o"]]:
    """A clip's prediction delayed cyclically by a quarter, half and three quarters of its length."""
    return [np.roll(predicted, len(predicted) * quarter // 4, axis=0) for quarter in (1, 2, 3)]
