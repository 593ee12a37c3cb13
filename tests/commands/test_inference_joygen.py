"""Stage 3 on a real clip with a real stage 2; only the networks are tiny and untrained."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import inference_joygen
from models.generation.face_crops import (
    FaceEdit,
    SourceFrame,
    choose_mouth_pictures,
    choose_reference_frames,
    edited_face,
    prepare_composed,
    prepare_crop,
    source_frames,
)
from models.generation.face_pasting import GeneratedFace, paste
from models.generation.generator import Generator
from models.generation.latent_codec import LatentCodec
from models.generation.talking_face import TalkingFace, talking_frames
from models.generation.talking_video import windows_of_parts
from tests.helpers.talking_clip import (
    CLIP_NAME,
    FACELESS,
    IMAGE_SIZE,
    N_MOTION,
    SPEECH_NAME,
    SPEECH_SECONDS,
    UNET,
    fill_folder,
    flags,
    result_of,
)
from utils.core.errors import BadInput
from utils.core.streaming import MOST_WORKERS
from utils.core.types import SAMPLE_RATE, VideoInfo
from utils.files.image_files import read_rgb, write_gray
from utils.imaging.masks import lower_face_mask, mouth_mask
from utils.media.video import VideoWriter, probe_video, read_frames, read_frames_at
from utils.results import store
from utils.results.edit_check import count_frames, open_edit

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("a folder")
    fill_folder(folder)
    return folder


@pytest.fixture(scope="module")
def edit(folder) -> store.EditResult:
    return store.load_edit(store.edit_dir(folder / "edit", folder / CLIP_NAME, folder / SPEECH_NAME))


@pytest.fixture(scope="module")
def networks(folder) -> tuple[TalkingFace, torch.Tensor]:
    codec, generator = LatentCodec.load(folder / "vae"), Generator.load(folder / "unet")
    windows = torch.randn(N_MOTION, 20, 12, generator=torch.Generator().manual_seed(1))
    return TalkingFace(codec, generator, IMAGE_SIZE), windows


def talk(folder: Path, edit: store.EditResult, networks, batch_size: int = 4, pose_driven: bool = True):
    talking_face, windows = networks
    sources = source_frames(edit, folder / CLIP_NAME, N_MOTION, pose_driven)
    return list(talking_frames(sources, windows.split(batch_size), talking_face, batch_size=batch_size))


def test_stage_2_found_the_face_where_it_is_shown(edit):
    hidden = [index for index in range(N_MOTION) if edit.frame_index[index] in FACELESS]
    assert len(hidden) == 10  # five forwards, the same five backwards: the clip is shorter than the speech
    assert np.flatnonzero(~edit.valid).tolist() == hidden
    box_size = edit.boxes[0, 2:] - edit.boxes[0, :2]
    assert ((edit.source_landmarks[0] > -0.3 * box_size) & (edit.source_landmarks[0] < 1.3 * box_size)).all()
    assert np.abs(edit.source_landmarks[0] - edit.landmarks[0]).mean() < 0.1 * box_size[0]


def test_result_has_the_speech_s_length_sound_and_a_label(folder, tmp_path, capsys):
    inference_joygen.main([*flags(folder, tmp_path), "--debug"])
    path = result_of(folder, tmp_path)
    assert path.name == "my clip (1) it's#a speech.v2.mp4"
    video = probe_video(path)
    assert (video.width, video.height, video.has_audio) == (240, 240, True)
    assert len(list(read_frames(path))) == 19
    assert video.duration == pytest.approx(SPEECH_SECONDS, abs=0.04)
    assert f"{path}: 19 frames, 10 passed through untouched" in capsys.readouterr().out
    metadata = media_tags(path)
    assert "synthetic" in metadata["title"]
    assert "joygen 0.1.0" in metadata["comment"]
    sheet = read_rgb(path.with_suffix(".png"), "advice")
    assert sheet.std() > 10
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, path.with_suffix(".png").name]


def media_tags(path: Path) -> dict[str, str]:
    import av

    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
        return dict(container.metadata)


def test_only_the_lower_face_changes(folder, edit, networks):
    clip = list(read_frames(folder / CLIP_NAME))
    frames = talk(folder, edit, networks)
    assert len(frames) == N_MOTION
    for index, frame in enumerate(frames):
        source = clip[edit.frame_index[index]]
        assert np.array_equal(frame.source.image, source)
        if not edit.valid[index]:
            assert np.array_equal(frame.image, source)
            continue
        inside = blending_region(edit, index, source.shape[:2])
        assert np.array_equal(frame.image[~inside], source[~inside])
        assert (frame.image[inside] != source[inside]).any(axis=1).mean() > 0.5


def blending_region(edit: store.EditResult, index: int, size: tuple[int, int]) -> np.ndarray:
    x1, y1, x2, y2 = edit.boxes[index].tolist()
    mask = lower_face_mask(edit.source_landmarks[index], (y2 - y1, x2 - x1), edit.landmarks[index])
    region = np.zeros(size, bool)
    assert min(x1, y1) >= 0
    assert x2 <= size[1]
    assert y2 <= size[0]
    region[y1:y2, x1:x2] = mask > 0
    return region


def test_same_frames_every_time(folder, edit, networks):
    first, again = talk(folder, edit, networks), talk(folder, edit, networks)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))


def test_batches_do_not_mix_frames(folder, edit, networks):
    whole, single = talk(folder, edit, networks), talk(folder, edit, networks, batch_size=1)
    differences = [np.abs(a.image.astype(int) - b.image).max() for a, b in zip(whole, single, strict=True)]
    assert max(differences) <= 1  # sums in another order


@pytest.fixture
def written(monkeypatch) -> list[np.ndarray]:
    """The frames before encoding."""
    frames = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, frame: (frames.append(frame), write(self, frame)))
    return frames


def test_files_repeat_and_flags_tell(folder, tmp_path, written):
    runs = {
        "plain": [],
        "again": [],
        "sampled": ["--faithful"],
        "sampled again": ["--faithful"],
        "other seed": ["--faithful", "--seed", "1"],
        "bfloat16": ["--dtype", "bfloat16"],
    }
    videos = {}
    for name, extra in runs.items():
        written.clear()
        inference_joygen.main([*flags(folder, tmp_path / name, dtype="float32"), *extra])
        videos[name] = np.stack(written)
    assert np.array_equal(videos["plain"], videos["again"])
    assert np.array_equal(videos["sampled"], videos["sampled again"])
    assert len(videos["sampled"]) == N_MOTION  # the number of upstream's audio windows, up to the motion's length
    assert not np.array_equal(videos["sampled"][:19], videos["plain"])
    assert not np.array_equal(videos["sampled"], videos["other seed"])
    assert 0 < np.abs(videos["bfloat16"].astype(int) - videos["plain"]).mean() < 1


def test_depth_is_followed_only_when_asked_for(folder, edit, networks):
    driven, free = talk(folder, edit, networks), talk(folder, edit, networks, pose_driven=False)
    assert free[0].source.face.depth is None
    assert not np.array_equal(driven[0].image, free[0].image)


def test_inputs_of_the_generator():
    landmarks = np.zeros((468, 2), np.float32)
    from utils.imaging.landmarks import OUTER_LIPS

    angles = np.linspace(0, 2 * np.pi, len(OUTER_LIPS), endpoint=False)
    landmarks[list(OUTER_LIPS)] = 40 + np.stack([20 * np.cos(angles), 10 * np.sin(angles)], axis=1) + [0, 15]
    image = np.zeros((100, 120, 3), np.uint8)
    image[10:90, 20:100] = (200, 100, 50)
    box = np.array([20, 10, 100, 90], np.int32)
    edit = FaceEdit(box, landmarks, landmarks, np.full((80, 80), 180, np.uint8))
    prepared = prepare_crop(image, edit, 64)
    crop, depth = prepared.crop, prepared.depth
    assert (crop == (200, 100, 50)).all()
    assert depth[44, 32] == 180  # the middle of the lips
    assert depth[:20].max() == 0
    assert prepare_crop(image, FaceEdit(box, landmarks, landmarks, None), 64).depth.max() == 0


def test_paste_with_a_face_parser(folder, edit):
    image = next(read_frames(folder / CLIP_NAME))
    face_edit = edited_face(edit, 0, True)
    inputs = (SourceFrame(image, face_edit), prepare_crop(image, face_edit, 64))
    generated = GeneratedFace(np.full((64, 64, 3), 255, np.uint8))
    everywhere = paste(*inputs, generated, lambda _: np.full((512, 512), 255, np.uint8))[0]
    nowhere, mask = paste(*inputs, generated, lambda _: np.zeros((512, 512), np.uint8))
    assert not mask.any()
    assert np.array_equal(nowhere, image)
    x1, y1, x2, y2 = face_edit.box
    assert (everywhere[y2 - 20, (x1 + x2) // 2] > 200).all()
    assert np.array_equal(everywhere[: (y1 + y2) // 2 - 30], image[: (y1 + y2) // 2 - 30])


def test_upstream_s_images_are_jpeg_files_on_their_way(folder, edit):
    image = next(read_frames(folder / CLIP_NAME))
    face_edit = edited_face(edit, 0, True)
    x1, y1, x2, y2 = face_edit.box
    size = (int(x2 - x1), int(y2 - y1))
    prepared = prepare_crop(image, face_edit, 64, faithful=True)
    crop, depth = prepared.crop, prepared.depth
    stored = jpeg(image[max(y1, 0) : y2, max(x1, 0) : x2])
    assert stored.shape[:2] == size[::-1]
    np.testing.assert_array_equal(crop, cv2.resize(stored, (64, 64), interpolation=cv2.INTER_LANCZOS4))
    mouth = mouth_mask(face_edit.landmarks, size[::-1])
    expected = cv2.resize(jpeg(face_edit.depth) * mouth, (64, 64), interpolation=cv2.INTER_LANCZOS4)
    np.testing.assert_array_equal(depth, expected)
    black = GeneratedFace(np.zeros((64, 64, 3), np.uint8))
    source = SourceFrame(image, face_edit)
    nowhere = paste(source, prepared, black, lambda _: np.zeros((512, 512), np.uint8), faithful=True)[0]
    np.testing.assert_array_equal(nowhere, jpeg(image))
    assert not np.array_equal(nowhere, image)


def jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return np.array(Image.open(file))


def test_frames_are_made_as_they_are_asked_for(networks):
    talking_face, windows = networks
    made = []

    def sources():
        for index in range(1000):
            made.append(index)
            yield SourceFrame(np.zeros((8, 8, 3), np.uint8), None)

    frames = talking_frames(sources(), (windows[:2] for _ in range(500)), talking_face, batch_size=2)
    for _ in range(10):
        next(frames)
    frames.close()
    n_workers = min(torch.get_num_threads(), MOST_WORKERS)
    assert len(made) <= 10 + (n_workers + 3) * 2


@pytest.fixture
def set_threads():
    n_threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(n_threads)


def test_workers_generate_the_same_as_one(folder, edit, networks, set_threads):
    runs = []
    for n_threads in (1, 3):  # each worker has one
        set_threads(n_threads)
        runs.append([frame.image for frame in talk(folder, edit, networks, batch_size=2)])
        assert torch.get_num_threads() == n_threads
    for one, several in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, several)


def test_sampled_latents_are_the_same_with_any_number_of_threads(folder, edit, networks, set_threads):
    codec, windows = networks[0].codec, networks[1]
    parts = [range(N_MOTION)]
    runs = []
    for n_threads in (1, 4):
        set_threads(n_threads)
        sampling = torch.Generator()
        talking_face = TalkingFace(codec, networks[0].generator, IMAGE_SIZE, sampling)
        batches = windows_of_parts(windows.split(2), parts, 2, sampling, seed=5)
        sources = source_frames(edit, folder / CLIP_NAME, N_MOTION, True)
        runs.append([frame.image for frame in talking_frames(sources, batches, talking_face, batch_size=2)])
    for one, several in zip(*runs, strict=True):
        assert np.abs(one.astype(int) - several).max() <= 1  # sums in another order; other samples differ by much more


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 0}, "--batch_size"),
        ({"img_size": 30}, "multiple of 4"),
        ({"video_path": "missing.mp4"}, "missing.mp4"),
        ({"audio_path": "missing.wav"}, "missing.wav"),
        ({"intermediate_dir": "elsewhere"}, "track.json"),
        ({"unet_model_path": "missing"}, "missing"),
    ],
)
def test_bad_arguments(folder, tmp_path, changes, named):
    with pytest.raises(BadInput, match=named):
        inference_joygen.main(flags(folder, tmp_path / "out", **changes))
    assert not list(tmp_path.rglob("*.mp4"))


def test_silent_file_is_no_speech(folder, tmp_path):
    with pytest.raises(BadInput, match="sound"):
        inference_joygen.main(flags(folder, tmp_path, audio_path=folder / CLIP_NAME))


def copied_edit(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder / "edit", tmp_path / "edit")
    return store.edit_dir(tmp_path / "edit", folder / CLIP_NAME, folder / SPEECH_NAME)


def refusal(folder: Path, tmp_path: Path) -> str:
    with pytest.raises(BadInput) as error:
        inference_joygen.main(flags(folder, tmp_path / "out", intermediate_dir=tmp_path / "edit"))
    assert not list((tmp_path / "out").glob("*"))
    return str(error.value)


@pytest.mark.parametrize("name", ["valid.npy", "source_landmarks.npy", "depth/00000003.png", "track.json"])
def test_incomplete_stage_2(folder, tmp_path, name):
    (copied_edit(folder, tmp_path) / name).unlink()
    message = refusal(folder, tmp_path)
    assert name in message
    assert "inference_edit_expression.py" in message


@pytest.mark.parametrize("field", ["source_bytes", "width", "n_source_frames"])
def test_stage_2_of_another_clip(folder, tmp_path, field):
    path = copied_edit(folder, tmp_path) / "track.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {field: 2}))
    assert "clip" in refusal(folder, tmp_path)


def test_stage_2_of_a_shorter_speech(edit):
    with pytest.raises(BadInput, match="shorter speech"):
        count_frames(edit, 2 * SAMPLE_RATE, faithful=False)
    assert count_frames(edit, 22 * SAMPLE_RATE // 25, faithful=False) == N_MOTION


def test_depth_image_of_another_size(folder, tmp_path):
    write_gray(copied_edit(folder, tmp_path) / "depth" / "00000002.png", np.zeros((5, 6), np.uint8))
    assert "6x5" in refusal(folder, tmp_path)


def test_weights_that_do_not_belong_together(folder, tmp_path):
    Generator.create(UNET | {"cross_attention_dim": 20}).save(tmp_path / "deaf")
    Generator.create(UNET | {"in_channels": 9}).save(tmp_path / "narrow")
    with pytest.raises(BadInput, match="another audio encoder"):
        inference_joygen.main(flags(folder, tmp_path / "out", unet_model_path=tmp_path / "deaf"))
    with pytest.raises(BadInput, match="another VAE"):
        inference_joygen.main(flags(folder, tmp_path / "out", unet_model_path=tmp_path / "narrow"))


def test_clip_of_another_size_is_no_match(folder, edit):
    video = probe_video(folder / CLIP_NAME)
    other = VideoInfo(video.path, video.height, video.width + 2, video.fps, video.duration, video.has_audio)
    with pytest.raises(BadInput, match="another clip"):
        open_edit(edit.directory, other)


def test_command_ends_with_one_line_and_exit_code_2(folder, tmp_path):
    command = [sys.executable, "inference_joygen.py", *flags(folder, tmp_path, fps=30)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: argument --fps: invalid choice: '30' (choose from '25', 'source')")
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*.mp4"))


def test_reference_is_another_frame_unless_the_same_is_asked_for(folder, edit, networks, tmp_path):
    talking_face, _ = networks
    references = choose_reference_frames(edit, folder / CLIP_NAME, N_MOTION, IMAGE_SIZE)
    assert [row is None for row in references.rows] == (~edit.valid[:N_MOTION]).tolist()
    bank = talking_face.encode_references(references.faces)
    face, depth = references.faces[:1], torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    own = talking_face.encode(face, depth)
    other = talking_face.encode(face, depth, torch.zeros_like(bank[:1]))
    n_channels = bank.shape[1]
    torch.testing.assert_close(own[:, :n_channels], other[:, :n_channels])
    torch.testing.assert_close(own[:, n_channels : 2 * n_channels], bank[:1], rtol=1e-4, atol=1e-4)
    assert not other[:, n_channels : 2 * n_channels].any()


def test_a_composed_reference_is_the_frame_with_another_s_mouth(folder, edit):
    mouths = choose_mouth_pictures(edit, folder / CLIP_NAME, N_MOTION)
    assert [len(pictures) == 0 for pictures in mouths] == (~edit.valid[:N_MOTION]).tolist()
    index = int(np.flatnonzero(edit.valid[:N_MOTION])[0])
    image = next(read_frames_at(folder / CLIP_NAME, [int(edit.frame_index[index])]))
    face = edited_face(edit, index, True)
    still = replace(face, landmarks=face.source_landmarks)
    red = [replace(mouth, image=np.full_like(mouth.image, (255, 0, 0))) for mouth in mouths[index]]
    assert abs(sum(mouth.share for mouth in red) - 1) < 1e-6
    prepared = prepare_composed(image, still, red, (IMAGE_SIZE, IMAGE_SIZE))
    mouth = mouth_mask(still.source_landmarks, face.depth.shape).astype(float)
    mouth = cv2.dilate(cv2.resize(mouth, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA), np.ones((7, 7))) > 0
    changed = (prepared.composed != prepared.crop).any(axis=-1)
    assert not (changed & ~mouth)[IMAGE_SIZE // 2 :].any()
    assert prepared.depth.shape == (IMAGE_SIZE, IMAGE_SIZE)
