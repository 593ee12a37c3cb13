"""The refiner: initial output, learning, saving and loading."""

import json
from dataclasses import replace

import pytest
import torch

from models.generation.refiner import INITIAL_LOGIT, Refiner, RefinerConfig, resize_images
from utils.core.errors import BadInput

CONFIG = RefinerConfig(size=16, channels=(8, 12), patch=4)


def images(n=2, size=16, seed=0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def no_depth(n=2) -> torch.Tensor:
    return torch.full((n, 1, 8, 8), -1.0)


def mouths(n=2, size=16, inside=1) -> torch.Tensor:
    return torch.full((n, 1, size, size), inside, dtype=torch.uint8)


def test_begins_as_the_reference_with_a_little_of_the_generated_image():
    generated, reference = images(size=8), images(seed=1)
    found = Refiner.create(CONFIG)(generated, reference, no_depth(), mouths())
    share = torch.sigmoid(torch.tensor(INITIAL_LOGIT))
    torch.testing.assert_close(found, torch.lerp(resize_images(generated, 16), reference, share))


def test_outside_the_lips_only_the_smooth_part_of_the_reference_changes():
    generated, reference = images(), images(seed=1)
    masks = mouths(inside=0)
    masks[..., 4:12, 8:] = 1
    refiner = Refiner.create(CONFIG)
    change = refiner.correct(generated, reference, no_depth(), masks)
    everywhere = refiner.correct(generated, reference, no_depth(), mouths())
    torch.testing.assert_close(change[..., 7:9, 11:], everywhere[..., 7:9, 11:])
    steps, all_steps = (field.diff(dim=-1)[..., :5].abs().mean() for field in (change, everywhere))
    assert steps < all_steps / 4
    torch.testing.assert_close(change[..., :4].mean(), everywhere[..., :4].mean(), atol=0.02, rtol=0)


def test_learns_which_image_is_right():
    """Where the reference is black the generated image is right, elsewhere the reference."""
    refiner = Refiner.create(CONFIG)
    optimizer = torch.optim.Adam(refiner.parameters(), lr=0.01)
    for step in range(150):
        truth = images(4, seed=step)
        generated, reference = resize_images(resize_images(truth, 4), 16), truth.clone()
        reference[:, :, :, :8] = -1
        expected = torch.cat((generated[..., :8], truth[..., 8:]), dim=-1)
        loss = (refiner(generated, reference, no_depth(4), mouths(4)) - expected).abs().mean()
        first = loss.item() if step == 0 else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 3


def test_same_seed_same_weights_and_a_folder_keeps_them(tmp_path):
    refiner = Refiner.create(CONFIG, seed=3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(refiner.parameters(), Refiner.create(CONFIG, seed=3).parameters(), strict=True)
    )
    refiner.save(tmp_path / "refiner")
    loaded = Refiner.load(tmp_path / "refiner")
    assert loaded.config == CONFIG and not loaded.training
    inputs = (images(), images(seed=1), no_depth(), mouths())
    torch.testing.assert_close(loaded(*inputs), refiner(*inputs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 15}, "no refiner has these sizes"),
        ({"depth": 3}, "depth"),
        ({"channels": ["many"]}, "'str'"),
        ({"channels": []}, "sizes"),
    ],
)
def test_a_config_that_describes_no_refiner_is_named(tmp_path, change, message):
    Refiner.create(CONFIG).save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match="unusable config of a refiner") as caught:
        Refiner.load(tmp_path)
    assert message in str(caught.value)


def test_weights_of_another_refiner_are_refused(tmp_path):
    Refiner.create(replace(CONFIG, channels=(16, 12))).save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"channels": [8, 12]}))
    with pytest.raises(BadInput):
        Refiner.load(tmp_path)


def test_shrinking_averages():
    stripes = torch.tensor([-1.0, 1.0]).repeat(8).expand(1, 3, 16, 16)
    assert resize_images(stripes, 4).abs().max() < 0.2
    assert resize_images(stripes, 16) is stripes
