from __future__ import annotations

import numpy as np
import pytest
import torch

from models.generation.latent_codec import LatentCodec
from scripts.mini_pack import train_vae
from tests.helpers.training_data import write_clip
from utils.core.errors import BadInput
from utils.data.clips import open_clips


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    for name in ("a", "b", "held_out"):
        write_clip(directory, name, has_audio=False)
    return directory


def train(data_dir, work_dir, steps, *options):
    output_dir = work_dir / "vae"
    arguments = [str(data_dir), "--output_dir", str(output_dir), "--work_dir", str(work_dir), "--steps", str(steps)]
    small = ["--channels", "8", "8", "--latent_channels", "4", "--batch_size", "2", "--validation", "held_out"]
    train_vae.main([*arguments, *small, "--gpu_id", "-1", *options])
    return output_dir


def test_result_opens_as_a_codec_with_latents_of_unit_variance(data_dir, tmp_path):
    codec = LatentCodec.load(train(data_dir, tmp_path, 3))
    assert (codec.factor, codec.channels) == (2, 4)
    frames = train_vae.measured_frames(open_clips(data_dir, ["a", "b"]), torch.device("cpu"))
    with torch.no_grad():
        assert codec.encode(frames[:16]).std().item() == pytest.approx(1.0, abs=0.2)


def test_the_config_says_that_the_weights_are_there(data_dir, tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_vae, "save_weights", killed)
    with pytest.raises(KeyboardInterrupt):
        train(data_dir, tmp_path, 1)
    assert not (tmp_path / "vae" / "config.json").exists()


def test_finished_training_is_not_repeated(data_dir, tmp_path):
    weights = train(data_dir, tmp_path, 2) / "diffusion_pytorch_model.safetensors"
    before = weights.read_bytes()
    train(data_dir, tmp_path, 2)
    assert weights.read_bytes() == before


def test_steps_depend_on_seed_and_number_alone(data_dir):
    clips = open_clips(data_dir, ["a", "b"])
    first, second = (train_vae.sample_batch(clips, 4, np.random.default_rng([0, 5])) for _ in range(2))
    assert torch.equal(first.images, second.images) and first.names == second.names
    assert first.images.shape == (4, 3, 128, 128) and first.images.min() >= -1 and first.images.max() <= 1
    assert set(first.names) <= {"a", "b"}


def test_work_of_another_network_is_not_continued(data_dir, tmp_path):
    train(data_dir, tmp_path, 1)
    with pytest.raises(BadInput, match="training of another network"):
        train(data_dir, tmp_path, 1, "--latent_channels", "8")


def test_budget_is_asked_for(data_dir, tmp_path):
    with pytest.raises(BadInput, match="give --steps or --minutes"):
        train_vae.main([str(data_dir), "--output_dir", str(tmp_path), "--work_dir", str(tmp_path)])
