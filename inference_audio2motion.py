"""Stage 1: speech to motion. Writes float32 [T, 64] expression coefficients at 25 Hz for stage 2.

python inference_audio2motion.py --drv_aud SPEECH.mp3 --result_dir results/a2m
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from utils import cli, packs, store
from utils.errors import BadInput
from utils.types import SAMPLES_PER_FRAME


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Turn speech into the motion of a face.")
    parser.add_argument("--drv_aud", type=Path, required=True, help="the speech: any file with a sound track")
    parser.add_argument("--result_dir", type=Path, default=Path("results/a2m"))
    parser.add_argument("--exp_file", type=Path, help="name of the result in --result_dir (default: <speech>.npy)")
    parser.add_argument("--a2m_ckpt", type=Path, help="audio2motion checkpoint or its folder (default: the pack's)")
    parser.add_argument("--hubert_path", type=Path, help="HuBERT folder, for networks that hear its features")
    parser.add_argument("--seed", type=int, default=0, help="of the noise that varies the motion (default 0)")
    parser.add_argument(
        "--temperature", type=non_negative, default=0.2, help="amount of noise (default 0.2; 0: always the same motion)"
    )
    parser.add_argument(
        "--mouth_amp", type=non_negative, default=0.45, help="how wide the mouth opens, where the network takes it"
    )
    parser.add_argument(
        "--faithful", action="store_true", help="as in the other stages; this one has nothing to switch yet"
    )
    cli.add_device_argument(parser)
    return parser.parse_args(arguments)


def non_negative(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"expected a number from 0 up, found {text!r}")
    return value


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    from models.audio2motion import load_audio2motion
    from models.audio_features import speech_features
    from utils.audio import load_waveform

    wave = load_waveform(options.drv_aud)
    if len(wave) < SAMPLES_PER_FRAME:
        raise BadInput("speech is too short", options.drv_aud, "at least 0.04 s", f"{len(wave)} samples at 16 kHz")
    pack = packs.resolve_pack(audio2motion=options.a2m_ckpt, hubert=options.hubert_path)
    network = load_audio2motion(pack.audio2motion, cli.resolve_device(options.gpu_id))
    print(packs.describe(pack))

    features = speech_features(wave, network.config.audio_type, network.config.use_pitch)
    motion = network.predict(features, options.seed, options.temperature, options.mouth_amp)

    motion_path = result_path(options)
    store.require_writable(motion_path.parent)
    store.save_motion(motion_path, motion)
    print(f"{motion_path}: {len(motion)} frames")


def result_path(options: argparse.Namespace) -> Path:
    name = options.exp_file or Path(options.drv_aud.stem)
    return options.result_dir / (name if name.suffix == ".npy" else name.with_name(f"{name.name}.npy"))


if __name__ == "__main__":
    cli.run(main)
