"""Augmentation: a function of its draws, honest about range, and able to do nothing."""

import pytest
import torch

from tests.trainer.tiny import NOTHING
from trainer.config import AugmentConfig
from trainer.data.augment import augment, draw

WILD = AugmentConfig(
    flip=0.5, rotate_deg=90, zoom=2, stretch=2, shift=0.5, brightness=1, contrast=4, side_light=1,
    blur=1, noise=64, erase=1,
)  # fmt: skip


def faces(count: int = 16, size: int = 32, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, size, size, channels)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def changed(
    images: torch.Tensor, config: AugmentConfig, seed: int = 1, size: int = 32
) -> torch.Tensor:
    return augment(images, size, config, draw(len(images), seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_with_every_range_closed_it_changes_nothing(channels: int) -> None:
    images = faces(channels=channels)
    made = changed(images, NOTHING)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, images.permute(0, 3, 1, 2).float(), atol=0.01, rtol=0)


def test_flip_mirrors() -> None:
    images = faces()
    made = changed(images, NOTHING.model_copy(update={"flip": 1.0}))
    expected = images.permute(0, 3, 1, 2).float().flip(3)
    torch.testing.assert_close(made, expected, atol=0.01, rtol=0)


def test_a_flip_of_one_half_mirrors_about_half() -> None:
    images = faces(400, 16)
    made = changed(images, NOTHING.model_copy(update={"flip": 0.5}), size=16)
    straight = images.permute(0, 3, 1, 2).float()
    same = (made - straight).abs().amax((1, 2, 3)) < 1
    mirrored = (made - straight.flip(3)).abs().amax((1, 2, 3)) < 1
    assert (same ^ mirrored).all()
    assert 140 < int(mirrored.sum()) < 260


@pytest.mark.parametrize("config", [AugmentConfig(), WILD], ids=["default", "wild"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_draws_give_the_same_images(config: AugmentConfig, channels: int) -> None:
    images = faces(channels=channels)
    torch.manual_seed(1)
    first = changed(images, config)
    torch.manual_seed(2)  # the global generator has no say
    torch.testing.assert_close(changed(images, config), first, atol=0, rtol=0)
    assert not torch.equal(changed(images, config, seed=2), first)


def test_each_image_is_changed_in_its_own_way() -> None:
    images = faces(1).expand(16, -1, -1, -1)
    made = changed(images, AugmentConfig())
    assert len({image.numpy().tobytes() for image in made}) == 16


@pytest.mark.parametrize("size", [24, 32, 48])
def test_values_stay_in_range_and_size_is_as_asked(size: int) -> None:
    made = changed(faces(channels=3), WILD, size=size)
    assert made.shape == (16, 3, size, size)
    assert torch.isfinite(made).all()
    assert made.min() >= 0
    assert made.max() <= 255


def test_the_images_given_are_left_alone() -> None:
    images = faces()
    before = images.clone()
    changed(images, WILD)
    assert torch.equal(images, before)


def _only(**update: float) -> AugmentConfig:
    return NOTHING.model_copy(update=update)


def test_brightness_shifts_a_whole_image_and_no_further_than_said() -> None:
    images = torch.full((200, 16, 16, 1), 128, dtype=torch.uint8)
    moved = changed(images, _only(brightness=0.2), size=16) - 128
    torch.testing.assert_close(moved.amax((1, 2, 3)), moved.amin((1, 2, 3)), atol=0.01, rtol=0)
    assert 45 < float(moved.abs().max()) <= 51.01  # 0.2 · 255


def test_contrast_keeps_the_mean() -> None:
    images = (faces(200, 16) // 4 + 96).to(torch.uint8)
    made = changed(images, _only(contrast=2.0), size=16)
    plain = images.permute(0, 3, 1, 2).float()
    torch.testing.assert_close(made.mean((1, 2, 3)), plain.mean((1, 2, 3)), atol=0.1, rtol=0)
    ratio = made.std((1, 2, 3)) / plain.std((1, 2, 3))
    assert 0.49 < float(ratio.min()) < 0.6
    assert 1.8 < float(ratio.max()) < 2.01


def test_light_from_a_side_is_a_ramp() -> None:
    images = torch.full((50, 16, 16, 1), 128, dtype=torch.uint8)
    made = changed(images, _only(side_light=0.5), size=16)[:, 0]
    torch.testing.assert_close(made.mean((1, 2)), torch.full((50,), 128.0), atol=0.1, rtol=0)
    second = made.diff(dim=1).diff(dim=1).abs().max()
    assert float(second) < 0.01  # straight
    assert float(made.std((1, 2)).max()) > 15


def _spots(count: int = 300) -> torch.Tensor:
    """Faces with one soft bright spot, 12 pixels right of the centre of 64."""
    x = torch.arange(64).float() - 31.5
    spot = 255 * torch.exp(-((x - 12) ** 2 + x[:, None] ** 2) / 18)
    return spot.round().to(torch.uint8).expand(count, 64, 64)[..., None]


def _moved_to(**update: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the spots are after a change: right and down of the centre, in pixels."""
    made = changed(_spots(), _only(**update), size=64)[:, 0]
    x = torch.arange(64).float() - 31.5
    weight = made.sum((1, 2))
    return (made * x).sum((1, 2)) / weight, (made * x[:, None]).sum((1, 2)) / weight


def test_a_shift_moves_by_at_most_its_share() -> None:
    right, down = _moved_to(shift=0.125)
    for moved in (right - 12, down):
        assert 7 < float(moved.abs().max()) < 8.1  # of 64 pixels
        assert float(moved.max()) > 6 > -6 > float(moved.min())


def test_a_rotation_turns_by_at_most_its_angle() -> None:
    right, down = _moved_to(rotate_deg=30.0)
    torch.testing.assert_close(torch.hypot(right, down), torch.full((300,), 12.0), atol=0.1, rtol=0)
    angle = torch.rad2deg(torch.atan2(down, right))
    assert float(angle.max()) > 27 > -27 > float(angle.min())
    assert float(angle.abs().max()) < 30.5


def test_a_zoom_and_a_stretch_go_both_ways_about_the_centre() -> None:
    right, down = _moved_to(zoom=1.5)
    assert float(down.abs().max()) < 0.1
    assert 17 < float(right.max()) < 18.1  # 12 · 1.5
    assert 7.9 < float(right.min()) < 8.5  # 12 / 1.5
    right, _ = _moved_to(stretch=1.44)
    assert 14 < float(right.max()) < 14.5  # 12 · √1.44: half goes into the other side
    assert 9.9 < float(right.min()) < 10.3


def test_erasing_covers_a_rectangle_of_one_grey() -> None:
    images = torch.zeros((300, 40, 40, 1), dtype=torch.uint8)
    made = changed(images, _only(erase=1.0), size=40)[:, 0]
    for image in made:
        covered = image > 0
        rows, columns = covered.any(1), covered.any(0)
        assert torch.equal(covered, rows[:, None] & columns[None, :])
        assert len(image[covered].unique()) == 1
        assert 0.1 < int(rows.sum()) / 40 < 0.5
    some = changed(images, _only(erase=0.2), size=40)[:, 0].amax((1, 2)) > 0
    assert 35 < int(some.sum()) < 90


def test_blur_takes_detail_and_leaves_the_mean() -> None:
    images = faces(20)
    made = changed(images, _only(blur=1.0))
    plain = images.permute(0, 3, 1, 2).float()
    assert (made.std((1, 2, 3)) < 0.8 * plain.std((1, 2, 3))).all()
    torch.testing.assert_close(made.mean((1, 2, 3)), plain.mean((1, 2, 3)), atol=3, rtol=0)


def test_noise_has_the_strength_said() -> None:
    images = torch.full((200, 32, 32, 1), 128, dtype=torch.uint8)
    deviation = changed(images, _only(noise=10.0)).std((1, 2, 3))
    assert 9 < float(deviation.max()) < 11
    assert float(deviation.min()) < 1
