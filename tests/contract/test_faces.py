"""The face crop: exact inside the image, defined everywhere else, the same for every caller."""

import struct
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.faces import (
    Box,
    CropGeometry,
    FaceInput,
    Image,
    prepare_detection,
    prepare_face,
    read_image,
    square_crop,
)

AS_IT_IS = CropGeometry(scale=1.0)


def picture(height: int, width: int, channels: int = 1, seed: int = 0) -> Image:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_inside_the_image_the_crop_is_the_pixels() -> None:
    image = picture(100, 120, 3)
    crop = square_crop(image, Box(10, 20, 40, 40), AS_IT_IS)
    np.testing.assert_array_equal(crop, image[20:60, 10:50])


def test_scale_and_shift_by_hand() -> None:
    image = picture(100, 120)
    geometry = CropGeometry(scale=1.2, shift_x=0.1, shift_y=-0.1)
    # Side 1.2·30 = 36; centre (40 + 20·0.6, 30 + 30·0.4) = (52, 42).
    crop = square_crop(image, Box(40, 30, 20, 30), geometry)
    np.testing.assert_array_equal(crop, image[24:60, 34:70])


@given(
    st.integers(-150, 150), st.integers(-150, 150), st.integers(1, 60), st.sampled_from([1, 3])
)  # fmt: skip
def test_beyond_the_image_its_edge_is_repeated(x: int, y: int, half: int, channels: int) -> None:
    """Wherever the box is: each pixel is that of the image nearest to it."""
    image = picture(48, 64, channels)
    crop = square_crop(image, Box(x, y, 2 * half, 2 * half), AS_IT_IS)
    rows = np.clip(np.arange(y, y + 2 * half), 0, 47)
    columns = np.clip(np.arange(x, x + 2 * half), 0, 63)
    np.testing.assert_array_equal(crop, image[rows][:, columns])


coordinates = st.floats(-1e6, 1e6)
sides = st.floats(0, 1500)


@given(
    coordinates, coordinates, sides, sides,
    st.floats(0.21, 2), st.floats(-1, 1), st.floats(-1, 1), st.integers(1, 40), st.integers(1, 40),
)  # fmt: skip
def test_any_box_gives_a_square(
    x: float, y: float, w: float, h: float,
    scale: float, shift_x: float, shift_y: float, height: int, width: int,
) -> None:  # fmt: skip
    geometry = CropGeometry(scale=scale, shift_x=shift_x, shift_y=shift_y)
    crop = square_crop(picture(height, width), Box(x, y, w, h), geometry)
    assert crop.dtype == np.uint8
    assert crop.shape == (max(1, round(scale * max(w, h))),) * 2


def test_colours_leave_in_rgb_order() -> None:
    bgr = np.zeros((32, 32, 3), np.uint8)
    bgr[:] = (10, 20, 30)
    prepared = prepare_face(bgr, FaceInput(size=32, colour="rgb"))
    assert prepared.shape == (32, 32, 3)
    assert prepared[0, 0].tolist() == [30, 20, 10]


def test_a_colour_photo_becomes_grey_by_luminance() -> None:
    bgr = picture(32, 32, 3)
    prepared = prepare_face(bgr, FaceInput(size=32))
    luminance = bgr @ np.array([0.114, 0.587, 0.299])  # ITU-R BT.601
    assert prepared.shape == (32, 32, 1)
    assert np.abs(prepared[..., 0] - luminance).max() <= 1


def test_a_grey_photo_becomes_three_equal_channels() -> None:
    grey = picture(32, 32)
    prepared = prepare_face(grey, FaceInput(size=32, colour="rgb"))
    for channel in range(3):
        np.testing.assert_array_equal(prepared[..., channel], grey)


@given(
    st.integers(1, 80), st.integers(1, 80), st.sampled_from([1, 3]),
    st.integers(16, 64), st.sampled_from(["grey", "rgb"]), st.booleans(),
)  # fmt: skip
def test_any_image_becomes_the_models_shape(
    height: int, width: int, channels: int, size: int, colour: Literal["grey", "rgb"], clahe: bool
) -> None:
    face = FaceInput(size=size, colour=colour, clahe=clahe)
    prepared = prepare_face(picture(height, width, channels), face)
    assert prepared.shape == (size, size, face.channels)
    assert prepared.dtype == np.uint8


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    image = picture(48, 48)
    np.testing.assert_array_equal(prepare_face(image, FaceInput(size=48))[..., 0], image)


def test_shrinking_averages_areas() -> None:
    image = picture(64, 64)
    prepared = prepare_face(image, FaceInput(size=16))[..., 0]
    means = image.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(prepared - means).max() <= 0.5


def test_growing_keeps_to_the_values_there_are() -> None:
    image = np.tile(np.array([[40, 80]], np.uint8), (2, 1))
    prepared = prepare_face(image, FaceInput(size=32))[..., 0].astype(int)
    assert (prepared.min(), prepared.max()) == (40, 80)
    assert (np.diff(prepared, axis=1) >= 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_clahe_brings_out_a_dark_face(channels: int) -> None:
    dark = (picture(64, 64, channels) // 8 + 10).astype(np.uint8)
    face = FaceInput(size=64, colour="grey" if channels == 1 else "rgb")
    plain = prepare_face(dark, face)
    equalised = prepare_face(dark, face.model_copy(update={"clahe": True}))
    assert equalised.std() > 1.5 * plain.std()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dark_face_is_brightened_to_the_mean_asked_for(channels: int) -> None:
    dark = (picture(64, 64, channels) // 8 + 5).astype(np.uint8)
    face = FaceInput(size=32, colour="grey" if channels == 1 else "rgb")
    plain = prepare_face(dark, face).astype(float)
    bright = prepare_face(dark, face.model_copy(update={"brighten_to": 90.0}))
    assert abs(bright.mean() - 90) < 1
    np.testing.assert_allclose(bright, plain * 90 / plain.mean(), atol=0.6 + 90 / plain.mean() / 2)


@given(st.floats(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_brightening_leaves_light_enough_and_black_faces_alone(
    least: float, low: int, high: int
) -> None:
    image = np.full((16, 16), min(low, high), np.uint8)
    image[:8] = max(low, high)
    made = prepare_face(image, FaceInput(size=16, brighten_to=least))[..., 0]
    if image.mean() >= least or not image.any():
        np.testing.assert_array_equal(made, image)
    else:
        assert (made >= image).all()
        assert made.mean() <= least + 0.5


def test_clahe_of_a_photo_leaves_its_hue() -> None:
    bgr = np.zeros((64, 64, 3), np.uint8)
    bgr[:] = (40, 60, 120)
    bgr[::2] //= 2
    prepared = prepare_face(bgr, FaceInput(size=64, colour="rgb", clahe=True))
    assert (prepared[..., 0] > prepared[..., 1]).all()
    assert (prepared[..., 1] > prepared[..., 2]).all()


def test_the_clahe_settings_are_opencvs() -> None:
    image = picture(64, 64)
    face = FaceInput(size=64, clahe=True, clahe_clip=3.5, clahe_grid=4)
    expected = cv2.createCLAHE(3.5, (4, 4)).apply(image)
    np.testing.assert_array_equal(prepare_face(image, face)[..., 0], expected)


@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("clahe", [False, True])
def test_a_detection_is_the_face_cut_out_by_hand(
    colour: Literal["grey", "rgb"], clahe: bool
) -> None:
    """Training sees whole faces, the box sees detections: they must become the same input."""
    image = picture(120, 160, 3)
    geometry = {"yunet": CropGeometry(scale=1.5), "haar": AS_IT_IS}
    face = FaceInput(size=48, colour=colour, clahe=clahe, crop=geometry)
    box = Box(50, 40, 40, 40)
    by_hand = image[30:90, 40:100].copy()
    np.testing.assert_array_equal(
        prepare_detection(image, box, face, "yunet"), prepare_face(by_hand, face)
    )
    assert prepare_detection(image, box, face, "haar").shape == (48, 48, face.channels)


def test_preparing_leaves_the_frame_as_it_was() -> None:
    """The same frame is cropped for every face in it."""
    image = picture(60, 60, 3)
    before = image.copy()
    face = FaceInput(size=48, colour="rgb", clahe=True, crop={"yunet": AS_IT_IS})
    prepare_detection(image, Box(5, 5, 48, 48), face, "yunet")
    np.testing.assert_array_equal(image, before)


def test_a_detector_without_measured_geometry_is_an_error() -> None:
    with pytest.raises(KeyError):
        prepare_detection(picture(20, 20), Box(0, 0, 9, 9), FaceInput(size=16), "yunet")


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_an_image_file_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    for channels in (1, 3):
        image = picture(20, 30, channels)
        cv2.imwrite(str(tmp_path / f"face{suffix}"), image)
        read = read_image(tmp_path / f"face{suffix}")
        assert read is not None
        # A grey BMP carries a palette and comes back as three equal channels.
        same = read if read.ndim == image.ndim else read[..., 0]
        np.testing.assert_array_equal(same, image)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    image = picture(20, 30, 4)
    cv2.imwrite(str(tmp_path / "face.png"), image)
    read = read_image(tmp_path / "face.png")
    assert read is not None
    np.testing.assert_array_equal(read, image[..., :3])


def test_a_name_that_is_not_ascii_is_read(tmp_path: Path) -> None:
    ok, data = cv2.imencode(".png", picture(8, 8))
    assert ok
    (tmp_path / "früh – 顔.png").write_bytes(data.tobytes())
    assert read_image(tmp_path / "früh – 顔.png") is not None


def test_a_photo_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    upright = np.zeros((64, 32), np.uint8)
    upright[:32] = 200  # bright above, dark below
    ok, jpeg = cv2.imencode(".jpg", np.rot90(upright))
    assert ok
    # One EXIF entry, orientation 6: "turn 90° clockwise to see it upright".
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    data = jpeg.tobytes()
    (tmp_path / "photo.jpg").write_bytes(data[:2] + segment + data[2:])
    read = read_image(tmp_path / "photo.jpg")
    assert read is not None
    assert read.shape == (64, 32)
    assert read[:24].min() > 150
    assert read[40:].max() < 50


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_image_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "face.png").write_bytes(content)
    assert read_image(tmp_path / "face.png") is None
    assert read_image(tmp_path / "absent.png") is None
    assert read_image(tmp_path) is None
