from __future__ import annotations

import pytest
import torch

from models.generation.latent_cache import LatentCache


def images(*numbers: int) -> torch.Tensor:
    return torch.stack([torch.full((3, 4, 4), number, dtype=torch.uint8) for number in numbers])


class Encoder:
    """Returns the mean of each image, and records the images of each call."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(images[:, 0, 0, 0].tolist())
        return images.float().mean((1, 2, 3))[:, None, None, None].expand(-1, 2, 8, 8)


@pytest.mark.parametrize(
    ("one_by_one", "asked"),
    [(True, [[1], [2], [3], [4]]), (False, [[1, 2, 1], [2, 3, 3], [4, 1, 2]])],
)
def test_only_what_is_missing_is_encoded(one_by_one, asked):
    cache, encode = LatentCache(one_by_one), Encoder()
    for numbers in ((1, 2, 1), (2, 1), (2, 3, 3), (4, 1, 2)):
        latents = cache(images(*numbers), encode)
        assert latents.shape == (len(numbers), 2, 8, 8)
        assert latents[:, 0, 0, 0].tolist() == list(numbers)
    assert encode.asked == asked
    assert cache.n_encoded == sum(map(len, asked))


def test_what_was_used_longest_ago_is_dropped():
    n_bytes = 2 * 8 * 8 * 4
    cache, encode = LatentCache(True, limit_bytes=2 * n_bytes), Encoder()
    for number in (1, 2, 1, 3, 1, 2):
        assert cache(images(number), encode)[0, 0, 0, 0] == number
        assert cache.n_bytes <= 2 * n_bytes
    assert encode.asked == [[1], [2], [3], [2]]


def test_a_batch_larger_than_the_limit_is_whole():
    cache, encode = LatentCache(True, limit_bytes=1), Encoder()
    assert cache(images(5, 6, 7), encode)[:, 0, 0, 0].tolist() == [5, 6, 7]
    assert cache.n_bytes == 0
