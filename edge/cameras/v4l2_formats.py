"""Which formats, sizes and rates a V4L2 device offers, asked of the kernel by ioctl.

Structures and numbers are those of the kernel's `videodev2.h`; each has the same layout on every
Linux, as all fields are fixed in size and naturally aligned.
"""

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Ioctl = Callable[[int, int, bytearray], object]
"""As `fcntl.ioctl`: descriptor, request, buffer changed in place; raises OSError."""

_READ, _READ_WRITE = 2, 3


def _request(direction: int, number: int, size: int) -> int:
    """A request code of the group 'V', as the kernel's `_IOC` makes it."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


# driver, card, bus_info, version, capabilities, device_caps, reserved
_CAPABILITY = struct.Struct("=16s32s32sIII12x")
# index, type, flags, description, pixelformat, mbus_code and reserved
_FORMAT = struct.Struct("=III32sI16x")
# index, pixel_format, type, union (discrete: width, height; stepwise: six numbers), reserved
_SIZE = struct.Struct("=III6I8x")
# index, pixel_format, width, height, type, union (discrete: a fraction; stepwise: three), reserved
_INTERVAL = struct.Struct("=IIIII6I8x")

QUERYCAP = _request(_READ, 0, _CAPABILITY.size)
ENUM_FMT = _request(_READ_WRITE, 2, _FORMAT.size)
ENUM_FRAMESIZES = _request(_READ_WRITE, 74, _SIZE.size)
ENUM_FRAMEINTERVALS = _request(_READ_WRITE, 75, _INTERVAL.size)

_CAPTURE, _CAPTURE_PLANAR, _DEVICE_CAPS = 0x1, 0x1000, 0x80000000
_BUFFER_CAPTURE, _BUFFER_CAPTURE_PLANAR = 1, 9
_DISCRETE = 1
_COMPRESSED = 0x1
_MOST = 256
"""No device offers more of anything; a faulty driver must not keep the loop going."""


@dataclass(frozen=True)
class FrameSize:
    """A size in pixels and its frame rates; a device that grants any rate between has two.

    A device that grants any size has the smallest and the largest as `any_size`.
    """

    width: int
    height: int
    fps: tuple[float, ...]
    any_size: bool = False


@dataclass(frozen=True)
class VideoFormat:
    """How frames come over the wire: the four letters of the code, and the sizes there are."""

    fourcc: str
    description: str
    compressed: bool
    sizes: tuple[FrameSize, ...]


@dataclass(frozen=True)
class VideoDevice:
    """What a device says of itself; `capture` is False for a node that gives no video."""

    driver: str
    card: str
    bus: str
    capture: bool
    formats: tuple[VideoFormat, ...]


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _fourcc(code: int) -> str:
    return code.to_bytes(4, "little").decode("ascii", "replace").rstrip()


def _enumerate(
    ioctl: Ioctl, descriptor: int, request: int, layout: struct.Struct, *given: object
) -> Iterator[tuple[int | bytes, ...]]:
    """Every answer to a request that counts up its first field; the device ends it by an error."""
    blank = layout.unpack(bytes(layout.size))
    for index in range(_MOST):
        buffer = bytearray(layout.pack(index, *given, *blank[1 + len(given) :]))
        try:
            ioctl(descriptor, request, buffer)
        except OSError:
            return
        yield layout.unpack(buffer)


def _rate(numerator: int, denominator: int) -> float:
    """Frames per second of an interval that is a fraction of a second."""
    return round(denominator / numerator, 3) if numerator else 0.0


def _rates(ioctl: Ioctl, descriptor: int, code: int, width: int, height: int) -> tuple[float, ...]:
    found: set[float] = set()
    for answer in _enumerate(
        ioctl, descriptor, ENUM_FRAMEINTERVALS, _INTERVAL, code, width, height
    ):
        numbers = [int(number) for number in answer]
        found.add(_rate(numbers[5], numbers[6]))
        if numbers[4] != _DISCRETE:
            found.add(_rate(numbers[7], numbers[8]))
            break
    return tuple(sorted(found - {0.0}, reverse=True))


def _sizes(ioctl: Ioctl, descriptor: int, code: int) -> Iterator[FrameSize]:
    for answer in _enumerate(ioctl, descriptor, ENUM_FRAMESIZES, _SIZE, code):
        numbers = [int(number) for number in answer]
        if numbers[2] == _DISCRETE:
            width, height = numbers[3:5]
            yield FrameSize(width, height, _rates(ioctl, descriptor, code, width, height))
            continue
        # min_width, max_width, step_width, min_height, max_height, step_height
        for width, height in ((numbers[3], numbers[6]), (numbers[4], numbers[7])):
            rates = _rates(ioctl, descriptor, code, width, height)
            yield FrameSize(width, height, rates, any_size=True)
        return


def describe_device(descriptor: int, ioctl: Ioctl = fcntl.ioctl) -> VideoDevice:
    """What an open device offers. Raises `OSError` for what is no V4L2 device."""
    buffer = bytearray(_CAPABILITY.size)
    ioctl(descriptor, QUERYCAP, buffer)
    driver, card, bus, _, whole, own = _CAPABILITY.unpack(buffer)
    # `capabilities` is of all nodes of the device together, `device_caps` of this one.
    can = own if whole & _DEVICE_CAPS else whole
    formats = []
    for kind, bit in ((_BUFFER_CAPTURE, _CAPTURE), (_BUFFER_CAPTURE_PLANAR, _CAPTURE_PLANAR)):
        if not can & bit:
            continue
        for answer in _enumerate(ioctl, descriptor, ENUM_FMT, _FORMAT, kind):
            _, _, flags, description, code = answer
            assert isinstance(description, bytes)
            formats.append(
                VideoFormat(
                    fourcc=_fourcc(int(code)),
                    description=_text(description),
                    compressed=bool(int(flags) & _COMPRESSED),
                    sizes=tuple(_sizes(ioctl, descriptor, int(code))),
                )
            )
    capture = bool(can & (_CAPTURE | _CAPTURE_PLANAR))
    return VideoDevice(_text(driver), _text(card), _text(bus), capture, tuple(formats))


def open_and_describe(node: Path) -> VideoDevice:
    """What a device node offers. Raises `OSError` where it cannot be opened or is no V4L2 device.

    Opening to ask does not disturb a program that captures from it.
    """
    descriptor = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return describe_device(descriptor)
    finally:
        os.close(descriptor)
