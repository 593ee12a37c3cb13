"""The commands of JoyGen's README, word for word, on a complete official tree with small random networks."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scripts import make_filled_weights
from tests.helpers import media, official_tree, talking_clip
from utils.core.errors import BadInput
from utils.core.types import SAMPLE_RATE
from utils.data.clips import open_clip
from utils.media.audio import load_waveform
from utils.media.timeline import n_video_frames
from utils.media.video import VideoWriter, probe_video, read_frames
from utils.results import store
from utils.weights import packs
from utils.weights.official_files import OFFICIAL_FILES, missing_files

COMMANDS = {
    "motion": r"""
python inference_audio2motion.py \
    --a2m_ckpt ./pretrained_models/audio2motion/240210_real3dportrait_orig/audio2secc_vae \
    --hubert_path ./pretrained_models/audio2motion/hubert --drv_aud ./demo/xinwen_5s.mp3 --seed 0 \
    --result_dir ./results/a2m --exp_file xinwen_5s.npy
""",
    "edit": r"""
python -u inference_edit_expression.py --name face_recon_feat0.2_augment --epoch=20 --use_opengl False \
    --checkpoints_dir ./pretrained_models --bfm_folder ./pretrained_models/BFM \
    --infer_video_path ./demo/example_5s.mp4 \
    --infer_exp_coeff_path ./results/a2m/xinwen_5s.npy --infer_result_dir ./results/edit_expression
""",
    "talk": r"""
python -u inference_joygen.py --unet_model_path pretrained_models/joygen \
    --vae_model_path pretrained_models/sd-vae-ft-mse \
    --intermediate_dir ./results/edit_expression --audio_path demo/xinwen_5s.mp3 --video_path demo/example_5s.mp4 \
    --enable_pose_driven --result_dir results/talk --img_size 256 --gpu_id 0
""",
    "prepare": r"""
python -u preprocess_dataset.py --checkpoints_dir ./pretrained_models --name face_recon_feat0.2_augment --epoch=20 \
    --use_opengl False --bfm_folder ./pretrained_models/BFM --video_dir ./demo \
    --result_dir ./results/preprocessed_dataset
""",
    "choose": "python -u preprocess_dataset_extra.py ./results/preprocessed_dataset --min_frames 5",
}
WEIGHED = ("motion", "edit", "talk", "prepare")  # commands that open weights and say which
CLIP, SPEECH = Path("demo/example_5s.mp4"), Path("demo/xinwen_5s.mp3")
SPEECH_SECONDS = 0.4
CLIP_FRAMES = (0, 1, 2, 12, 3, 4)  # of the talking clip; its twelfth has no face
MARGIN = 0.15  # of the box's size, by which the blending region may extend beyond the box
CODING_ERROR = 2.0  # grey levels, mean change by encoding twice


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    return official_tree.tiny_tree(tmp_path_factory)


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory) -> SimpleNamespace:
    """The project's folder after the three commands, and the output of each."""
    folder = official_tree.project_folder(tmp_path_factory.mktemp("readme") / "JoyGen", tree)
    (folder / "demo").mkdir()
    face = talking_clip.moving_face()
    sound = media.write_wav(folder / "clip.wav", media.speech_like(SPEECH_SECONDS), SAMPLE_RATE)
    with VideoWriter(folder / CLIP, audio_path=sound) as writer:
        for index in CLIP_FRAMES:
            writer.write(face[index])
    media.write_song_with_cover(folder / SPEECH, media.speech_like(SPEECH_SECONDS), SAMPLE_RATE)
    results = {name: run_command(command, folder) for name, command in COMMANDS.items()}
    return SimpleNamespace(folder=folder, results=results)


def run_command(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    python, *arguments = shlex.split(command.replace("\\\n", " "))
    assert python == "python"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_readme_command_runs_on_the_official_weights(run, name):
    result = run.results[name]
    assert result.returncode == 0, result.stderr
    assert (name in WEIGHED) == result.stdout.startswith("weights: official; random numbers")
    assert "Traceback" not in result.stderr


def test_the_pipeline_runs_on_the_official_weights(run):
    command = f"bash scripts/inference_pipeline.sh {SPEECH} {CLIP} results/pipeline"
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    result = subprocess.run(
        command.split(), cwd=run.folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    talk = f"talk/{CLIP.stem}#{SPEECH.stem}.mp4"
    piped, by_hand = (list(read_frames(run.folder / folder / talk)) for folder in ("results/pipeline", "results"))
    assert len(piped) == len(by_hand) > 0
    assert all(np.array_equal(one, other) for one, other in zip(piped, by_hand, strict=True))


def test_prepared_clip_is_listed_for_training(run):
    data_dir = run.folder / "results" / "preprocessed_dataset"
    assert (data_dir / "train.txt").read_text() == f"{CLIP.stem}\n"
    clip = open_clip(data_dir / CLIP.stem)
    assert clip.valid.tolist() == [index != 12 for index in CLIP_FRAMES]
    assert clip.depths[0].max() > 0


def test_motion_lasts_as_long_as_the_speech(run):
    motion = np.load(run.folder / "results" / "a2m" / "xinwen_5s.npy")
    n_frames = n_video_frames(len(load_waveform(run.folder / SPEECH)), SAMPLE_RATE)
    assert motion.dtype == np.float32
    assert motion.shape[1:] == (64,)
    assert n_frames <= len(motion) < n_frames + 4
    assert motion.std() > 0


def test_depth_is_drawn_where_there_is_a_face(run):
    edit = opened_edit(run)
    is_face = np.array(CLIP_FRAMES)[edit.frame_index] != 12
    assert np.array_equal(edit.valid, is_face)
    assert 0 < edit.valid.sum() < len(edit)
    for index in np.flatnonzero(edit.valid):
        depth = edit.depth(index)
        x1, y1, x2, y2 = edit.boxes[index]
        assert depth.shape == (y2 - y1, x2 - x1)
        assert (depth > 0).mean() > 0.1
    assert edit.record.weights == "official"


def opened_edit(run: SimpleNamespace) -> store.EditResult:
    return store.load_edit(run.folder / "results" / "edit_expression" / CLIP.stem / SPEECH.stem)


def test_video_changes_in_the_lower_face_alone(run):
    path = run.folder / "results" / "talk" / f"{CLIP.stem}#{SPEECH.stem}.mp4"
    video, edit = probe_video(path), opened_edit(run)
    source = list(read_frames(run.folder / CLIP))
    frames = list(read_frames(path))
    assert len(frames) == n_video_frames(len(load_waveform(run.folder / SPEECH)), SAMPLE_RATE)
    assert video.has_audio
    assert (video.height, video.width) == source[0].shape[:2]
    for index, frame in enumerate(frames):
        difference = np.abs(frame.astype(int) - source[edit.frame_index[index]]).mean(axis=-1)
        may_change = lower_part(edit, index, difference.shape)
        assert difference[~may_change].mean() < CODING_ERROR
        if edit.strength[index] == 1:  # it fades beside frames without a face
            assert difference[may_change].mean() > 4 * CODING_ERROR


def lower_part(edit: store.EditResult, index: int, size: tuple[int, ...]) -> np.ndarray:
    """The lower half of a frame's box, extended by MARGIN; empty without a face."""
    region = np.zeros(size, bool)
    if edit.valid[index]:
        x1, y1, x2, y2 = edit.boxes[index]
        x_margin, y_margin = round(MARGIN * (x2 - x1)), round(MARGIN * (y2 - y1))
        region[(y1 + y2) // 2 - y_margin : y2 + y_margin, max(0, x1 - x_margin) : x2 + x_margin] = True
    return region


def test_both_packs_are_the_same_classes_of_other_sizes(tree):
    official, mini = (loaded_parts(pack) for pack in (packs.official_pack(tree), packs.mini_pack()))
    assert set(mini) == set(official) - {"hubert", "recon", "face_parsing"}  # not in the mini pack
    for name, part in mini.items():
        assert type(part) is type(official[name]), name
        assert sizes_of(part) != sizes_of(official[name]), name


def test_the_packs_motion_networks_predict_alike(tree):
    """Of two kinds, a flow-VAE on HuBERT and an ensemble on Whisper states, behind one interface."""
    from models.audio.audio_features import SpeechFeatures
    from models.motion.audio2motion_checkpoint import load_audio2motion

    for pack in (packs.official_pack(tree), packs.mini_pack()):
        network = load_audio2motion(pack.audio2motion)
        features = SpeechFeatures(np.zeros((48, network.audio_dim), np.float32), np.zeros(48, np.float32))
        motion = network.predict(features)
        assert (motion.shape, motion.dtype) == ((24, 64), np.float32) and np.isfinite(motion).all()


def loaded_parts(pack: packs.Pack) -> dict[str, object]:
    """Every part of a pack, opened as the stages open it."""
    from models.audio.hubert import HubertEncoder
    from models.audio.speech_encoder import load_audio_encoder
    from models.face3d.face_model import FaceModel
    from models.face3d.recon_net import ReconNet
    from models.generation.face_parsing import FaceParsing
    from models.generation.generator import Generator
    from models.generation.latent_codec import LatentCodec

    codec, generator = LatentCodec.load(pack.vae), Generator.load(pack.unet)
    encoder = load_audio_encoder(pack.whisper)
    parts = {
        "face model": FaceModel.load(pack.face_model),
        "whisper": getattr(encoder, "network", encoder),
        "codec": codec,
        "vae": codec.vae,
        "generator": generator,
        "unet": generator.unet,
    }
    optional = {"hubert": HubertEncoder, "recon": ReconNet, "face_parsing": FaceParsing}
    paths = {name: getattr(pack, name) for name in optional}
    return parts | {name: optional[name].load(path) for name, path in paths.items() if path is not None}


def sizes_of(part: object) -> list[tuple[int, ...]]:
    """Shapes of the tensors of a network, or of a codec's network."""
    network = part if isinstance(part, torch.nn.Module) else part.vae  # type: ignore[attr-defined]
    return [tuple(value.shape) for _, value in (*network.named_parameters(), *network.named_buffers())]


def test_tree_has_every_official_file_but_the_pose_network(tree):
    assert missing_files(tree) == []
    expected = {str(file.path) for file in OFFICIAL_FILES if file.group != "dwpose"}
    found = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    assert found == expected | {make_filled_weights.MARKER_NAME}
    assert "random" in (tree / make_filled_weights.MARKER_NAME).read_text().lower()


def test_tree_is_the_same_every_time_and_only_what_is_missing_is_made(tree, tmp_path, capsys):
    copy = official_tree.copy_tree(tree, tmp_path)
    weights_path = Path("joygen") / "diffusion_pytorch_model.safetensors"
    (copy / weights_path).unlink()
    (copy / "whisper" / "tiny.pt").unlink()
    (copy / "whisper" / "tiny.pt").write_text("something that the user put here")
    make_filled_weights.main([str(copy), "--tiny", "--with", "recon", "parsing"])
    assert (copy / weights_path).read_bytes() == (tree / weights_path).read_bytes()
    assert (copy / "whisper" / "tiny.pt").read_text() == "something that the user put here"
    assert ": 1 files of random weights" in capsys.readouterr().out


def test_tree_is_not_put_among_other_files(tree, tmp_path):
    stranger = tmp_path / "pretrained_models"
    (stranger / "joygen").mkdir(parents=True)
    (stranger / "joygen" / "config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"another origin \(.*pretrained_models\)"):
        make_filled_weights.main([str(stranger), "--tiny"])
    assert [path.name for path in stranger.rglob("*")] == ["joygen", "config.json"]
    with pytest.raises(BadInput, match=r"other random weights.* seed 8.*found .* seed 7"):
        make_filled_weights.main([str(tree), "--tiny", "--seed", "8"])
    with pytest.raises(BadInput, match="not a folder"):
        make_filled_weights.main([str(stranger / "joygen" / "config.json"), "--tiny"])


def test_full_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    usage = SimpleNamespace(total=10**12, used=10**12 - 10**9, free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BadInput, match=r"disk too full .*expected \d{4} MB free, found 1000 MB"):
        make_filled_weights.main([str(tmp_path / "new" / "tree")])
    assert not (tmp_path / "new").exists()
