"""Frames of the serial link: as described, whole or not at all, whatever the line does to them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_config.serial_protocol import (
    FROM_DEVICE,
    LABELS,
    MAX_ENCODED,
    MAX_PAYLOAD,
    Acknowledge,
    Brightness,
    Faces,
    FaceSeen,
    Fault,
    Frame,
    Heartbeat,
    Hello,
    Kind,
    Message,
    Query,
    Receiver,
    Result,
    Sender,
    Status,
    decode,
    encode,
    parse,
)
from tests.firmware_config.mcu_program import MCU, by_hand, cobs_by_hand, crc32_by_hand

VECTORS: dict[str, Any] = json.loads((MCU / "test_vectors.json").read_text(encoding="utf-8"))

FRAMES = st.builds(
    Frame,
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.binary(max_size=MAX_PAYLOAD) | st.binary(max_size=MAX_PAYLOAD).map(lambda b: bytes(len(b))),
)


def random_frames(count: int, seed: int) -> list[Frame]:
    """Frames of every kind of content, many zeros among them."""
    chance = random.Random(seed)
    return [
        Frame(
            chance.randrange(256),
            k & 0xFFFF,
            bytes(
                chance.choice((0, 0, 1, 255, chance.randrange(256)))
                for _ in range(chance.randint(0, MAX_PAYLOAD))
            ),
        )
        for k in range(count)
    ]


def test_what_they_are_held_against_is_right() -> None:
    """The check value of CRC-32, and the examples of the COBS paper's encoding."""
    assert crc32_by_hand(b"123456789") == 0xCBF43926
    assert cobs_by_hand(b"") == b"\x01"
    assert cobs_by_hand(b"\0") == b"\x01\x01"
    assert cobs_by_hand(b"\x11\x22\0\x33") == b"\x03\x11\x22\x02\x33"


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: str(vector["name"]))
def test_the_shared_vectors(vector: dict[str, Any]) -> None:
    frame = Frame(vector["type"], vector["sequence"], bytes.fromhex(vector["payload"]))
    encoded = bytes.fromhex(vector["encoded"])
    assert encode(frame) == encoded == by_hand(frame)
    assert Receiver().feed(encoded) == [frame]


@pytest.mark.parametrize("vector", VECTORS["damaged"], ids=lambda vector: str(vector["name"]))
def test_the_shared_vectors_of_what_is_no_frame(vector: dict[str, Any]) -> None:
    receiver = Receiver()
    assert receiver.feed(bytes.fromhex(vector["bytes"])) == []
    assert receiver.damaged == 1


@given(FRAMES)
def test_a_frame_is_laid_out_as_described_and_comes_back(frame: Frame) -> None:
    encoded = encode(frame)
    assert encoded == by_hand(frame)
    assert 0 not in encoded[:-1] and len(encoded) <= MAX_ENCODED + 1
    assert decode(encoded[:-1]) == frame


def test_a_payload_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 64 bytes"):
        encode(Frame(1, 0, bytes(MAX_PAYLOAD + 1)))


@given(st.lists(FRAMES, max_size=8), st.data())
def test_however_the_stream_is_cut_the_frames_are_the_same(
    frames: list[Frame], data: st.DataObject
) -> None:
    stream = b"".join(map(encode, frames))
    receiver, found = Receiver(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += receiver.feed(stream[:cut])
        stream = stream[cut:]
    assert found == frames
    assert receiver.damaged == 0


@given(st.binary(max_size=400), FRAMES)
def test_noise_costs_no_frame_that_follows_a_delimiter(noise: bytes, frame: Frame) -> None:
    receiver = Receiver()
    receiver.feed(noise + b"\0")
    assert receiver.feed(encode(frame)) == [frame]


def test_random_bytes_are_never_a_frame_and_never_pile_up() -> None:
    receiver, chance = Receiver(), random.Random(1337)
    for _ in range(250):
        assert receiver.feed(chance.randbytes(2000)) == []
        assert len(receiver._rest) <= MAX_ENCODED + 1
    assert receiver.damaged > 1000


def test_a_bad_line_delivers_nothing_that_was_not_sent() -> None:
    chance = random.Random(1337)
    frames = random_frames(5000, seed=1)
    receiver, found = Receiver(), []
    for frame in frames:
        line = bytearray()
        for byte in encode(frame):
            fate = chance.random()
            if fate < 0.002:
                line.append(byte ^ 1 << chance.randrange(8))
            elif fate < 0.004:
                line += bytes([byte, chance.randrange(256)])
            elif fate > 0.002 * 3:
                line.append(byte)
        found += receiver.feed(bytes(line))
    sent = set(frames)
    assert all(frame in sent for frame in found)
    assert 0.5 * len(frames) < len(found) < len(frames), "many came through, and not all"
    order = [frame.sequence for frame in found]
    assert order == sorted(order)


def test_every_flip_of_a_single_bit_is_caught() -> None:
    for frame in random_frames(60, seed=2):
        encoded = encode(frame)
        for bit in range(8 * len(encoded)):
            flipped = bytearray(encoded)
            flipped[bit // 8] ^= 1 << bit % 8
            assert Receiver().feed(bytes(flipped) + b"\0") == []


def frame_of(number: int, kind: int = Kind.FACES) -> bytes:
    return encode(Frame(kind, number, b""))


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ([7, 8, 9], 0),
        ([7, 9, 12], 3),
        ([65534, 65535, 0, 1], 0),
        ([65535, 2], 2),
        ([500, 3, 4], 0),
    ],
    ids=["in order", "with gaps", "around the end", "a gap around it", "a sender that began anew"],
)
def test_missing_numbers_are_counted(numbers: list[int], lost: int) -> None:
    receiver = Receiver()
    for number in numbers:
        receiver.feed(frame_of(number))
    assert receiver.lost == lost


def test_a_hello_begins_the_numbers_anew() -> None:
    receiver = Receiver()
    for data in (frame_of(5), frame_of(100, Kind.HELLO | FROM_DEVICE), frame_of(101)):
        receiver.feed(data)
    assert receiver.lost == 0


EVERY_MESSAGE = [
    Hello(1, False, "box"),
    Hello(255, True, "Gerät"),
    Heartbeat(True),
    Faces(0, ()),
    Faces(
        3, (FaceSeen(4_000_000_000, "surprise", 100, 0.3), FaceSeen(2, "low_quality", 0, 6553.5))
    ),
    Brightness(0),
    Brightness(100),
    Query(),
    Status(40, 4_000_000_000, 65535, 1),
    Acknowledge(65535, Result.BAD_VALUE),
    Fault("silent 2"),
]


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("from_device", [False, True])
def test_a_message_comes_back_as_it_was(message: Message, from_device: bool) -> None:
    (frame,) = Receiver().feed(Sender(from_device=from_device).encode(message))
    assert frame.from_device is from_device
    assert parse(frame) == message


def test_numbers_that_do_not_fit_are_told_as_the_largest_that_do() -> None:
    crowd = tuple(FaceSeen(k, "happy", 50, 1e6) for k in range(9))
    told = parse(Frame(Kind.FACES, 0, Faces(300, crowd).payload()))
    assert told == Faces(255, tuple(FaceSeen(k, "happy", 50, 6553.5) for k in range(7)))
    status = parse(Frame(Kind.STATUS, 0, Status(1, 2, 10**6, 10**6).payload()))
    assert status == Status(1, 2, 65535, 65535)


def test_a_long_name_is_cut_between_characters() -> None:
    told = parse(Frame(Kind.HELLO, 0, Hello(1, False, "x" + "é" * 30).payload()))
    assert told == Hello(1, False, "x" + "é" * 15)


def test_a_name_can_stand_in_a_log() -> None:
    told = parse(Frame(Kind.HELLO, 0, b"\x01\x00lamp\nERROR \x1b[2J\xff"))
    assert told == Hello(1, False, "lampERROR [2J\N{REPLACEMENT CHARACTER}")


@given(st.integers(0, 255), st.binary(max_size=MAX_PAYLOAD))
def test_any_payload_is_a_message_or_a_value_error(kind: int, payload: bytes) -> None:
    try:
        message = parse(Frame(kind, 0, payload))
    except ValueError:
        return
    known = {int(k) for k in Kind}
    assert (message is None) == (kind & ~FROM_DEVICE not in known)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (Kind.BRIGHTNESS, b"\x65"),
        (Kind.BRIGHTNESS, b""),
        (Kind.QUERY, b"\0"),
        (Kind.HELLO, b"\x01"),
        (Kind.FACES, bytes(8)),
        (Kind.FACES, b"\x01" + bytes(4) + bytes([len(LABELS), 50, 0, 0])),
        (Kind.FACES, b"\x01" + bytes(4) + bytes([0, 101, 0, 0])),
        (Kind.ACKNOWLEDGE, b"\0\0\x09"),
    ],
)
def test_what_a_payload_may_not_say(kind: Kind, payload: bytes) -> None:
    with pytest.raises(ValueError):
        parse(Frame(kind, 0, payload))


def test_a_sender_numbers_its_frames_around_the_end() -> None:
    sender = Sender(from_device=False)
    sender.sequence = 65535
    stream = sender.encode(Query()) + sender.encode(Query())
    assert [frame.sequence for frame in Receiver().feed(stream)] == [65535, 0]


def test_the_labels_are_in_the_order_that_firmware_was_built_with() -> None:
    """A change of it is a change of the protocol: count `VERSION` up."""
    assert LABELS == (
        "angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "uncertain",
        "low_quality",
    )  # fmt: skip


def test_the_vectors_are_shipped_beside_the_firmware() -> None:
    assert (Path(MCU) / "src" / "fer_link.c").is_file()
    assert {len(VECTORS["frames"]), len(VECTORS["damaged"])} == {13, 9}
