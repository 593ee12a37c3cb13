from __future__ import annotations

import numpy as np
import pytest
import torch

from models.audio.whisper_encoder import EncoderDims, WhisperEncoder, log_mel_segments, log_mel_spectrogram
from models.generation.talking_video import windows_of_parts
from tests.helpers.audio_windows import audio_windows
from utils.core.errors import BadInput
from utils.media.windows import needed_rows, stream_windows

SMALL = EncoderDims(n_audio_state=16, n_audio_head=2, n_audio_layer=2, n_audio_ctx=20)


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    return WhisperEncoder.create(SMALL).eval()


def speech_like(n_samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose loudness rises and falls."""
    loudness = np.sin(np.arange(n_samples) / 3000) ** 2
    return (0.3 * loudness * np.random.default_rng(seed).standard_normal(n_samples)).clip(-1, 0.99).astype(np.float32)


@pytest.mark.parametrize("n_samples", [320, 6400, 6500, 13_119])
def test_fifty_rows_per_second_of_every_layer(encoder, n_samples):
    states = encoder.encode(speech_like(n_samples))
    assert states.shape == (n_samples // 320, 3, 16)
    assert states.dtype == torch.float32


def test_segments_join_to_the_whole(encoder):
    wave = speech_like(20_000)
    segments = list(encoder.encode_segments(wave))
    assert [len(segment) for segment in segments] == [20, 20, 20, 2]
    assert torch.equal(torch.cat(segments), encoder.encode(wave))


def test_windows_can_be_cut_while_encoding(encoder):
    wave = speech_like(30_000)
    streamed = torch.cat(list(stream_windows(encoder.encode_segments(wave), 50, batch_size=8)))
    assert torch.equal(streamed, audio_windows(encoder.encode(wave), 50))


@pytest.mark.parametrize(
    ("parts", "n_encoded"),
    [
        ([range(16, 24)], 2),  # rows 28 to 51 of segments 1 and 2, the whole wave's rows being 93 in 5 segments
        ([range(0, 8), range(32, 40)], 3),  # rows 0 to 19 and 60 to 83
        ([range(48, 50)], 1),  # after the end of the sound; the last row is repeated
        ([range(0, 50)], 5),
    ],
)
def test_segments_that_no_part_needs_are_not_encoded(encoder, monkeypatch, parts, n_encoded):
    """The windows of a video's missing parts are bit-identical; frames at 25 Hz, batches of 8."""
    wave = speech_like(30_000)
    whole = list(stream_windows(encoder.encode_segments(wave), 50, batch_size=8))
    expected = list(windows_of_parts(whole, parts, 8))
    forward, calls = encoder.forward, []
    monkeypatch.setattr(encoder, "forward", lambda mel: (calls.append(1), forward(mel))[1])
    segments = encoder.encode_segments(wave, needed_rows(parts, len(wave) // 320))
    found = list(windows_of_parts(stream_windows(segments, 50, batch_size=8), parts, 8))
    assert len(calls) == n_encoded
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_last_state_is_whispers_own_output_before_its_final_norm(encoder):
    log_mel = torch.randn(2, 80, 40)
    last = encoder(log_mel)[:, :, -1]
    assert torch.allclose(encoder.encoder.ln_post(last), encoder.encoder(log_mel), atol=1e-6)


def test_log_mel_in_blocks_is_whispers_log_mel(monkeypatch):
    from whisper.audio import log_mel_spectrogram as whispers

    monkeypatch.setattr("models.audio.whisper_encoder.MEL_BLOCK", 37)
    wave = speech_like(33_333)
    assert torch.allclose(log_mel_spectrogram(wave), whispers(wave), atol=1e-6)


def test_the_last_segment_is_padded_after_the_logarithm():
    segments = list(log_mel_segments([torch.full((80, 51), 0.5)], n_rows_per_segment=20))
    assert [n_rows for _, n_rows in segments] == [20, 5]
    assert segments[1][0][:, 11:].unique().tolist() == [0.0]


def test_training_reaches_every_weight_that_is_not_frozen():
    encoder = WhisperEncoder.create(SMALL)
    encoder(torch.randn(1, 80, 40)).square().mean().backward()
    trainable = [weight for weight in encoder.parameters() if weight.requires_grad]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in trainable)


def test_save_and_load_keep_sizes_and_weights(encoder, tmp_path):
    path = tmp_path / "encoder.pt"
    encoder.save(path)
    loaded = WhisperEncoder.load(path)
    assert loaded.dims == SMALL
    wave = speech_like(9000)
    assert torch.allclose(loaded.encode(wave), encoder.encode(wave), atol=0.02)
    assert all(weight.dtype == torch.float32 for weight in loaded.parameters())


def test_the_seed_decides_the_new_weights():
    first, second, other = (WhisperEncoder.create(SMALL, seed).encoder.conv1.weight for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)


def saved(path, encoder, edit):
    encoder.save(path)
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.pop("dims"), "not a Whisper checkpoint"),
        (lambda content: content["dims"].pop("n_mels"), "n_mels"),
        (lambda content: content["dims"].update(n_audio_head=3), "odd sizes"),
        (lambda content: content["dims"].update(n_audio_layer=3), "missing keys such as encoder.blocks.2"),
        (
            lambda content: content["model_state_dict"].update(head=torch.zeros(1)),
            "unexpected keys such as head",
        ),
    ],
)
def test_another_file_is_named(encoder, tmp_path, edit, message):
    with pytest.raises(BadInput, match=message):
        WhisperEncoder.load(saved(tmp_path / "encoder.pt", encoder, edit))


def test_a_decoder_in_the_file_is_left_alone(encoder, tmp_path):
    def add_decoder(content):
        content["model_state_dict"]["decoder.ln.weight"] = torch.zeros(4)

    assert WhisperEncoder.load(saved(tmp_path / "encoder.pt", encoder, add_decoder)).dims == SMALL


def test_audio_without_a_whole_row_is_refused(encoder):
    with pytest.raises(BadInput, match="at least 320 samples"):
        encoder.encode(np.zeros(319, np.float32))
