"""Train audio2motion on clips that preprocess_dataset.py has tracked.

python train_audio2motion.py --config config/audio2motion_mini.yaml --export pretrained_models/mini/audio2motion

The training resumes from its output folder, keeps the checkpoint whose mouth follows unheard speakers best, and is
repeatable: on one machine the same seed gives the same weights.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from jaxtyping import Float
from torch import Tensor, nn

from models.audio2motion import Audio2MotionConfig, build_audio2motion
from models.audio_features import AUDIO_DIMS
from models.face_model import FaceModel
from models.motion_training import (
    MotionBatch,
    collate,
    labelled,
    median_correlation,
    opening_direction,
    opening_matches,
    ridge_matches,
    with_hubert,
)
from utils import cli
from utils.checkpoints import half_precision, read_weights, save_checkpoint, save_weights
from utils.config import load_config, to_dict
from utils.errors import BadInput
from utils.metrics import LaggedCorrelation
from utils.motion_dataset import AugmentationConfig, MotionDataConfig, WindowSampler, load_motion_clips
from utils.motion_losses import LandmarkLoss, LossConfig, cyclic_weight, laplacian_energy, magnitude, masked_mse
from utils.store import atomic_path, require_writable

LAST_NAME, BEST_NAME = "last.pt", "best.pt"


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam; the rate rises linearly over the warm-up and falls by decay_factor every decay_steps.

    The weights that are validated and exported follow the trained ones by (1 - average_decay) of the way each step.
    """

    learning_rate: float = 5e-4
    warmup_steps: int = 1000
    decay_steps: int = 250_000
    decay_factor: float = 0.1
    clip_norm: float = 1.0
    average_decay: float = 0.0

    def rate(self, step: int) -> float:
        warmth = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.learning_rate * warmth * self.decay_factor ** (step / self.decay_steps)


@dataclass(frozen=True)
class TrainConfig:
    data_dir: Path
    face_model: Path
    output_dir: Path
    hubert_dir: Path | None = None  # for network.audio_type hubert
    max_steps: int = 400_000
    seed: int = 0
    report_interval: int = 100  # steps
    validation_interval: int = 2000
    checkpoint_interval: int = 2000
    export_gain: float = 1.0  # an exported network moves this much more about the mean expression
    network: Audio2MotionConfig = field(default_factory=Audio2MotionConfig)
    data: MotionDataConfig = field(default_factory=MotionDataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    config = load_config(TrainConfig, options.config, options.overrides)
    device = cli.resolve_device(options.gpu_id)
    check(config, options.export)

    training = Training(config, device)
    training.run()
    if options.export:
        print(f"exported {export(config, options.export, training.mean_expression())}")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config/audio2motion.yaml"), help="training config")
    parser.add_argument("--export", type=Path, help="folder for the best checkpoint (fp16) and its config.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values, such as max_steps=100")
    cli.add_device_argument(parser)
    return parser.parse_intermixed_args(arguments)


def check(config: TrainConfig, export_dir: Path | None) -> None:
    """Refuse early what would fail late."""
    check_features(config)
    if config.data.window_frames % config.network.sizes.stride:
        raise BadInput(f"data.window_frames is no multiple of {config.network.sizes.stride}", expected="such as 100")
    require_writable(config.output_dir)
    if export_dir is not None:
        require_writable(export_dir)


def check_features(config: TrainConfig) -> None:
    if config.network.audio_type not in AUDIO_DIMS:
        raise BadInput("unknown network.audio_type", expected=" or ".join(AUDIO_DIMS), found=config.network.audio_type)
    if config.network.audio_type != "hubert":
        return
    if config.hubert_dir is None:
        advice = "set it to the folder of facebook/hubert-large-ls960-ft, or network.audio_type to mfcc"
        raise BadInput("hubert_dir is not set", expected="a HuBERT folder", found="nothing", advice=advice)
    if config.augmentation.noise_probability:
        expected, found = "0 with network.audio_type hubert", str(config.augmentation.noise_probability)
        advice = "HuBERT hears each clip once, so noise cannot be added to its windows"
        raise BadInput("augmentation.noise_probability cannot be used", None, expected, found, advice)


class Training:
    """Network, optimizer, random generators and step: everything that a checkpoint holds."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        face = FaceModel.load(config.face_model)
        training, validation = load_motion_clips(config.data_dir, config.data)
        clips = [labelled(clip, config.network, face) for clip in (*training, *validation)]
        if config.network.audio_type == "hubert" and config.hubert_dir is not None:
            clips = with_hubert(clips, config.data_dir, config.hubert_dir, device)
        self.clips, self.validation = clips[: len(training)], clips[len(training) :]
        mirror = face.mirror_exp.numpy() if face.mirror_exp is not None else None
        self.sampler = WindowSampler(self.clips, config.data.window_frames, config.augmentation, mirror)
        _, identity_basis, expression_basis = face.landmark_bases()
        self.landmark_loss = LandmarkLoss(identity_basis, expression_basis).to(device)
        self.opening = opening_direction(expression_basis.numpy())

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            audio_dim = self.clips[0].audio.shape[1] or None  # else that of the audio type
            self.network = build_audio2motion(config.network, audio_dim).to(device)
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.optimizer.learning_rate)
        self.rng = np.random.default_rng(config.seed)
        self.noise_generator = torch.Generator().manual_seed(config.seed)
        self.step, self.best = 0, -1.0

    def mean_expression(self) -> Float[np.ndarray, " 64"]:
        """Of all usable frames that are trained on."""
        return np.concatenate([clip.expression[clip.valid] for clip in self.clips]).mean(axis=0)

    def run(self) -> None:
        """Train to max_steps, from the last checkpoint if there is one."""
        config = self.config
        self.restore()
        print(f"{len(self.clips)} clips to train on, {len(self.validation)} to validate on, from step {self.step}")
        if self.validation:
            report_matches("linear baseline", ridge_matches(self.clips, self.validation, self.opening))
        sums: dict[str, float] = defaultdict(float)
        since = time.monotonic()
        while self.step < config.max_steps:
            for name, value in self.train_step().items():
                sums[name] += value
            self.step += 1
            is_last = self.step == config.max_steps
            if self.step % config.report_interval == 0:
                terms = "  ".join(f"{name} {value / config.report_interval:.4f}" for name, value in sums.items())
                seconds = (time.monotonic() - since) / config.report_interval
                print(f"step {self.step}  {terms}  {seconds:.2f} s/step", flush=True)
                sums.clear()
                since = time.monotonic()
            if self.step % config.validation_interval == 0 or is_last:
                self.validate()
            if self.step % config.checkpoint_interval == 0 or is_last:
                self.save()

    def train_step(self) -> dict[str, float]:
        """One optimizer step on fresh windows; gives the unweighted loss terms and the weighted total."""
        config = self.config
        windows = [self.sampler.draw(self.rng) for _ in range(config.data.batch_size)]
        batch = collate(windows, config.augmentation, self.rng, self.device)
        terms = self.loss_terms(batch)
        total = weighted_total(terms, config.loss, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = config.optimizer.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.optimizer.clip_norm)
        self.optimizer.step()
        follow(self.average, self.network, config.optimizer.average_decay)
        return {"total": total.item()} | {name: term.item() for name, term in terms.items()}

    def loss_terms(self, batch: MotionBatch) -> dict[str, Tensor]:
        self.network.train()
        sizes, loss = self.network.vae.sizes, self.config.loss
        shape = (len(batch.motion), sizes.latent, batch.motion.shape[1] // sizes.stride)
        noise = torch.randn(shape, generator=self.noise_generator).to(self.device)
        result = self.network(batch.inputs, batch.motion, batch.mask, noise)
        terms = {
            "kl": result.kl,
            "expression": masked_mse(result.output, batch.motion, batch.mask),
            "landmarks": self.landmark_loss(result.output, batch.motion, batch.identity, batch.mask),
            "laplacian": laplacian_energy(result.output, batch.mask),
            "magnitude": magnitude(result.output, batch.mask),
        }
        if loss.prior_expression or loss.prior_landmarks:
            likely = self.network.sample(batch.inputs, torch.zeros_like(noise))
            terms["prior_expression"] = masked_mse(likely, batch.motion, batch.mask)
            terms["prior_landmarks"] = self.landmark_loss(likely, batch.motion, batch.identity, batch.mask)
        return terms

    def validate(self) -> None:
        """Print how well mouths of unheard speakers are predicted; keep the network if it was never better."""
        score = float(self.step)  # without validation clips the newest is the best
        if self.validation:
            matches = opening_matches(self.average, self.validation, self.opening)
            report_matches(f"step {self.step} validation", matches)
            score = median_correlation(matches)
        if score > self.best:
            self.best = score
            content = {"network": self.average.state_dict(), "step": self.step, "score": score}
            save_checkpoint(self.config.output_dir / BEST_NAME, content)

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "network_config": asdict(self.config.network),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "noise_generator": self.noise_generator.get_state(),
            "step": self.step,
            "best": self.best,
        }
        save_checkpoint(self.config.output_dir / LAST_NAME, state)

    def restore(self) -> None:
        path = self.config.output_dir / LAST_NAME
        if not path.is_file():
            return
        state = read_weights(path)
        audio_dim = state["network"]["mel_encoder.0.weight"].shape[1]
        if (state["network_config"], audio_dim) != (asdict(self.config.network), self.network.audio_dim):
            advice = "choose another output_dir, or delete this one"
            raise BadInput("checkpoint of another network", path, "the config's network", "other sizes", advice)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.noise_generator.set_state(state["noise_generator"])
        self.step, self.best = state["step"], state["best"]


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights and statistics towards the trained ones."""
    for slow, fast in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def weighted_total(terms: Mapping[str, Tensor], weights: LossConfig, step: int) -> Tensor:
    factors = {name: getattr(weights, name) for name in terms}
    factors["kl"] = cyclic_weight(step, weights.kl, weights.kl_period)
    return torch.stack([factors[name] * term for name, term in terms.items()]).sum()


def report_matches(label: str, matches: Mapping[str, LaggedCorrelation]) -> None:
    """One line: r of the mouth's opening at the best lag, per clip and as a median."""
    per_clip = "  ".join(f"{name} {match.r:.2f}@{match.lag:+d}" for name, match in matches.items())
    print(f"{label}  {per_clip}  median {median_correlation(matches):.3f}", flush=True)


def amplified(
    network: Mapping[str, Tensor], gain: float, mean_expression: Float[np.ndarray, " 64"]
) -> dict[str, Tensor]:
    """The same network with ``gain`` times the motion about the mean: y -> mean + gain (y - mean) in its last layer.

    What sound does not tell is averaged out in training, which leaves the mouth too still.
    """
    scaled = dict(network)
    scaled["vae.decoder.out_proj.weight"] = gain * network["vae.decoder.out_proj.weight"]
    center = (1 - gain) * torch.from_numpy(mean_expression).float()
    scaled["vae.decoder.out_proj.bias"] = gain * network["vae.decoder.out_proj.bias"] + center
    return scaled


def export(config: TrainConfig, directory: Path, mean_expression: Float[np.ndarray, " 64"]) -> Path:
    """Write the best checkpoint as half-precision tensors under the official names, with the config it needs.

    ``config.export_gain`` amplifies its motion. Raises BadInput if the folder holds another checkpoint: a folder
    stands for its newest.
    """
    best = read_weights(config.output_dir / BEST_NAME)
    path = directory / f"model_ckpt_steps_{best['step']}.safetensors"
    for other in directory.glob("model_ckpt_steps_*"):
        if other != path:
            raise BadInput(
                "folder holds another checkpoint", other, path.name, other.name, "delete it and export again"
            )
    metadata = {"steps": str(best["step"]), "validation_correlation": f"{best['score']:.3f}"}
    save_weights(path, half_precision(amplified(best["network"], config.export_gain, mean_expression)), metadata)
    variant = {name: value for name, value in to_dict(config.network).items() if name not in ("cond_channels", "sizes")}
    with atomic_path(directory / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(variant, sort_keys=False))
    return path


if __name__ == "__main__":
    cli.run(main)
