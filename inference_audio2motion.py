"""Stage 1: speech to motion. Writes float32 [T, 64] expression coefficients at 25 Hz for stage 2.

python inference_audio2motion.py --drv_aud SPEECH.mp3 --result_dir results/a2m
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from utils.core import cli
from utils.core.errors import BadInput, printable
from utils.core.types import INAUDIBLE, SAMPLES_PER_FRAME
from utils.files.atomic import folders_above, require_writable
from utils.results import store
from utils.weights import packs

if TYPE_CHECKING:
    import numpy as np
    import torch

    from models.audio.audio_features import SpeechFeatures
    from models.motion.audio2motion import Audio2Motion

_log = logging.getLogger(__name__)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Turn speech into the motion of a face.")
    parser.add_argument("--drv_aud", type=Path, required=True, help="the speech: any file with a sound track")
    parser.add_argument("--result_dir", type=Path, default=Path("results/a2m"), help="default results/a2m")
    parser.add_argument("--exp_file", type=file_name, help="name of the result in --result_dir (default: <speech>.npy)")
    parser.add_argument("--a2m_ckpt", type=Path, help="audio2motion checkpoint or its folder (default: the pack's)")
    parser.add_argument(
        "--hubert_path", type=Path, help="HuBERT folder (default: the pack's); networks that hear MFCC do not open it"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise that varies the motion (default 0)")
    parser.add_argument(
        "--temperature",
        type=cli.non_negative,
        default=0.2,
        help="amount of noise (default 0.2; 0: always the same motion)",
    )
    parser.add_argument(
        "--mouth_amp",
        type=cli.non_negative,
        default=0.45,
        help="how wide the mouth opens, where the network takes it (default 0.45)",
    )
    parser.add_argument(
        "--silence",
        choices=("close", "off"),
        help="where nobody speaks, close: hold the mouth still, and shut it in long pauses; off: whatever the network "
        "says (default: close with the mini pack, off with official weights and with --faithful)",
    )
    parser.add_argument("--faithful", action="store_true", help="upstream's behaviour in every point of FIDELITY.md")
    cli.add_device_argument(parser)
    return parser.parse_args(arguments)


def file_name(text: str) -> Path:
    path = Path(text)
    if not path.name:
        raise argparse.ArgumentTypeError(f"expected a file's name, found {text!r}")
    return path


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    from models.motion.audio2motion import load_audio2motion
    from utils.media.audio import load_waveform

    wave = load_waveform(options.drv_aud)
    if len(wave) < SAMPLES_PER_FRAME:
        raise BadInput("speech is too short", options.drv_aud, "at least 0.04 s", f"{len(wave)} samples at 16 kHz")
    if max(wave.max(), -wave.min()) < INAUDIBLE:
        _log.warning("%s: its first sound track is silent", printable(options.drv_aud))
    pack = packs.resolve_pack(audio2motion=options.a2m_ckpt, hubert=options.hubert_path)
    device = cli.resolve_device(options.gpu_id)
    network = load_audio2motion(pack.audio2motion, device)
    motion_path = result_path(options)
    require_writable(motion_path.parent)
    print(packs.describe(pack))

    with folders_above(motion_path):
        features = hear(wave, network, pack.hubert, device, motion_path.parent)
        motion = network.predict(features, options.seed, options.temperature, options.mouth_amp)
        if closes_in_silence(options, pack, network):
            motion = rest_in_silence(motion, wave, pack.face_model)
        store.save_motion(motion_path, motion)
    print(f"{motion_path}: {len(motion)} frames")


def hear(
    wave: np.ndarray, network: Audio2Motion, hubert_dir: Path | None, device: torch.device, scratch: Path
) -> SpeechFeatures:
    """The features that the network was trained on. HuBERT is opened only if it is needed, and let go of again.

    scratch: folder for the file without a name that HuBERT's states are kept in.
    """
    from models.audio.audio_features import speech_features
    from models.audio.hubert import HubertEncoder

    config, hubert = network.config, None
    if config.audio_type == "hubert" and hubert_dir is not None:
        hubert = HubertEncoder.load(hubert_dir, device)
        if hubert.n_channels != network.audio_dim:
            expected, found = f"{network.audio_dim} channels for this audio2motion network", str(hubert.n_channels)
            raise BadInput(
                "HuBERT of another width", hubert_dir, expected, found, "give the HuBERT it was trained with"
            )
    return speech_features(wave, config.audio_type, config.use_pitch, hubert, scratch)


def closes_in_silence(options: argparse.Namespace, pack: packs.Pack, network: Audio2Motion) -> bool:
    """What --silence says, else whether network and face model are of the mini pack's kind."""
    if options.silence is not None:
        return bool(options.silence == "close")
    return pack.name.startswith("mini") and network.config.audio_type != "hubert" and not options.faithful


def rest_in_silence(motion: np.ndarray, wave: np.ndarray, face_model: Path) -> np.ndarray:
    """The motion with a shut mouth where nobody speaks: the motion's mean expression with the lips brought together."""
    from models.face3d.closed_mouth import LipGaps
    from models.face3d.face_model import FaceModel
    from models.motion.mouth_silence import close_in_silence

    gaps = LipGaps.of(FaceModel.load(face_model))
    return gaps.uncrossed(close_in_silence(motion, wave, gaps.closed(motion.mean(axis=0))))


def result_path(options: argparse.Namespace) -> Path:
    return store.motion_path(options.result_dir, options.exp_file or Path(options.drv_aud.stem))


if __name__ == "__main__":
    cli.run(main)
