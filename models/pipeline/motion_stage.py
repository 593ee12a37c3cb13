"""Stage 1: speech → expression coefficients, float32 [T, 64] at 25 Hz."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.audio.audio_features import SpeechFeatures, speech_features
from models.audio.hubert import HubertEncoder
from models.face3d.closed_mouth import LipGaps
from models.face3d.face_model import FaceModel
from models.motion.audio2motion import Audio2Motion
from models.motion.audio2motion_checkpoint import load_audio2motion
from models.motion.mouth_silence import close_in_silence
from models.pipeline.options import MotionOptions
from utils.core.errors import BadInput, printable
from utils.core.monitor import Monitor
from utils.core.types import INAUDIBLE, SAMPLES_PER_FRAME
from utils.files.atomic import folders_above, require_writable
from utils.media.audio import load_waveform
from utils.results import store
from utils.weights.packs import Pack, describe

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MotionResult:
    """The file of stage 1 and its number of frames at 25 Hz."""

    path: Path
    n_frames: int


def make_motion(options: MotionOptions, monitor: Monitor) -> MotionResult:
    """Write the expression coefficients that a speech asks for. Raises BadInput if it cannot be used."""
    wave = load_waveform(options.audio_path)
    if len(wave) < SAMPLES_PER_FRAME:
        found = f"{len(wave)} samples at 16 kHz"
        raise BadInput("speech is too short", options.audio_path, "at least 0.04 s", found)
    if max(wave.max(), -wave.min()) < INAUDIBLE:
        _log.warning("%s: its first sound track is silent", printable(options.audio_path))
    pack = options.resolve_pack()
    network = load_audio2motion(pack.audio2motion, options.device)
    path = options.motion_path
    require_writable(path.parent)
    monitor.say(describe(pack))
    for note in notes(options, network):
        monitor.say(note)

    with folders_above(path):
        features = extract_features(wave, network, pack.hubert, options.device, path.parent)
        motion = network.predict(features, options.seed, options.temperature, options.mouth_amp)
        if closes_in_silence(options, pack, network):
            motion = rest_in_silence(motion, wave, pack.face_model)
        store.save_motion(path, motion)
    monitor.say(f"{path}: {len(motion)} frames")
    return MotionResult(path, len(motion))


def notes(options: MotionOptions, network: Audio2Motion) -> list[str]:
    """One line for every option that is given and has no effect with this network."""
    config, lines = network.config, []
    takes_amplitude = config.use_pitch and config.use_mouth_amp_embed
    if options.mouth_amp != MotionOptions.mouth_amp and not takes_amplitude:
        lines.append("note: --mouth_amp has no effect: this network is not conditioned on a mouth amplitude")
    if options.hubert_path is not None and config.audio_type != "hubert":
        lines.append(f"note: --hubert_path has no effect: this network takes {config.audio_type} features")
    if config.regression.members:
        given = [
            f"--{name}" for name in ("seed", "temperature") if getattr(options, name) != getattr(MotionOptions, name)
        ]
        lines += [f"note: {name} has no effect on the motion: this network samples nothing" for name in given]
    elif options.temperature == 0 and options.seed != MotionOptions.seed:
        lines.append("note: --seed has no effect on the motion with --temperature 0")
    return lines


def extract_features(
    wave: np.ndarray, network: Audio2Motion, hubert_dir: Path | None, device: torch.device, scratch: Path
) -> SpeechFeatures:
    """The features that the network was trained on. HuBERT is loaded only if they are its states, and released.

    scratch: folder of the unnamed file that holds HuBERT's states.
    """
    config, hubert = network.config, None
    if config.audio_type == "hubert" and hubert_dir is not None:
        hubert = HubertEncoder.load(hubert_dir, device)
        if hubert.n_channels != network.audio_dim:
            expected, found = f"{network.audio_dim} channels for this audio2motion network", str(hubert.n_channels)
            advice = "give the HuBERT it was trained with"
            raise BadInput("HuBERT of another width", hubert_dir, expected, found, advice)
    return speech_features(wave, config.audio_type, config.use_pitch, hubert, scratch)


def closes_in_silence(options: MotionOptions, pack: Pack, network: Audio2Motion) -> bool:
    """What --silence says, else whether network and face model are of the mini pack's kind."""
    if options.silence is not None:
        return options.silence == "close"
    return pack.name.startswith("mini") and network.config.audio_type != "hubert" and not options.faithful


def rest_in_silence(motion: np.ndarray, wave: np.ndarray, face_model: Path) -> np.ndarray:
    """The motion with a closed mouth where nobody speaks: its mean expression with the lips brought together."""
    gaps = LipGaps.of(FaceModel.load(face_model))
    return gaps.uncrossed(close_in_silence(motion, wave, gaps.closed(motion.mean(axis=0))))
