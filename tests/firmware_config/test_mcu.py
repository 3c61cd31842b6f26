"""The firmware's C code: strict C99, and the same as Python's in every byte."""

import os
import pty
import random
import re
import shutil
import subprocess
import time
import tty
from itertools import pairwise
from pathlib import Path

import pytest

from edge.sinks.serial_link import SerialLink
from firmware_config.mcu_header import HEADER, header
from firmware_config.serial_config import SerialConfig
from firmware_config.serial_protocol import (
    Brightness,
    Faces,
    FaceSeen,
    Frame,
    Heartbeat,
    Hello,
    Message,
    Query,
    Receiver,
    Sender,
    encode,
)
from firmware_config.simulated_mcu import SimulatedMcu
from tests.firmware_config.mcu_program import MCU, McuProgram
from tests.firmware_config.test_serial_protocol import VECTORS, random_frames


def test_the_header_is_made_from_the_definition() -> None:
    mend = f"python -m firmware_config.mcu_header {HEADER.relative_to(MCU.parents[1])}"
    assert HEADER.read_text(encoding="utf-8") == header(), f"made anew by: {mend}"


def test_nothing_but_string_h_and_no_allocation() -> None:
    text = "".join(file.read_text() for file in sorted((MCU / "src").iterdir()))
    included = set(re.findall(r'#include [<"](\S+)[>"]', text))
    assert included <= {"string.h", "stddef.h", "stdint.h", "fer_link.h", "fer_protocol.h"}
    assert not re.search(r"\b(malloc|calloc|realloc|alloca|free)\b", text)


def test_the_shared_vectors(mcu_program: McuProgram) -> None:
    frames = [
        Frame(v["type"], v["sequence"], bytes.fromhex(v["payload"])) for v in VECTORS["frames"]
    ]
    encoded = [bytes.fromhex(v["encoded"]) for v in VECTORS["frames"]]
    assert mcu_program.encode(frames) == encoded
    assert mcu_program.decode(encoded)[0] == frames


@pytest.mark.parametrize("vector", VECTORS["damaged"], ids=lambda vector: str(vector["name"]))
def test_the_shared_vectors_of_what_is_no_frame(
    mcu_program: McuProgram, vector: dict[str, str]
) -> None:
    frames, damaged, _ = mcu_program.decode([bytes.fromhex(vector["bytes"])])
    assert (frames, damaged) == ([], 1)


def test_a_payload_that_is_too_long_is_refused(mcu_program: McuProgram) -> None:
    assert mcu_program.encode([Frame(1, 0, bytes(65))]) == [b""]


def test_c_and_python_agree_on_random_frames(mcu_program: McuProgram) -> None:
    frames = random_frames(3000, seed=3)
    encoded = mcu_program.encode(frames)
    assert encoded == list(map(encode, frames))
    assert mcu_program.decode(encoded)[0] == frames


def damaged_stream(seed: int) -> list[bytes]:
    """Frames over a bad line, in chunks that do not end where frames do."""
    chance = random.Random(seed)
    stream = bytearray(b"".join(map(encode, random_frames(800, seed))))
    for _ in range(300):
        place = chance.randrange(len(stream))
        match chance.randrange(3):
            case 0:
                stream[place] ^= 1 << chance.randrange(8)
            case 1:
                del stream[place]
            case _:
                stream.insert(place, chance.randrange(256))
    cuts = sorted({0, len(stream), *(chance.randrange(len(stream)) for _ in range(100))})
    return [bytes(stream[a:b]) for a, b in pairwise(cuts)]


@pytest.mark.parametrize("seed", range(3))
def test_c_and_python_agree_on_what_a_bad_line_makes_of_them(
    mcu_program: McuProgram, seed: int
) -> None:
    receiver, chunks = Receiver(), damaged_stream(seed)
    frames = [frame for chunk in chunks for frame in receiver.feed(chunk)]
    assert mcu_program.decode(chunks) == (frames, receiver.damaged, receiver.lost)
    assert receiver.damaged > 50 and receiver.lost > 0


def test_c_catches_every_flip_of_a_single_bit(mcu_program: McuProgram) -> None:
    encoded = list(map(encode, random_frames(400, seed=4)))
    tried, passed = mcu_program.flips_passed(encoded)
    assert tried == sum(8 * len(one) for one in encoded)
    assert passed == 0


def conversation(seed: int, start_ms: int) -> list[tuple[int, bytes]]:
    """What a box may say to a device, and when: orderly, silent, restarted, wrong and damaged."""
    chance, sender = random.Random(seed), Sender(from_device=False)
    faces = tuple(FaceSeen(k, "fear", 10 * k, k / 2) for k in range(5))
    orderly: list[Message] = [
        Hello(1, False, "box"), Hello(1, True, "box"), Heartbeat(True), Heartbeat(False),
        Faces(5, faces), Faces(0, ()), Brightness(30), Query(),
    ]  # fmt: skip
    now_ms, told = start_ms, [(start_ms, sender.encode(orderly[0]))]
    for _ in range(400):
        now_ms += chance.choice((0, 7, 100, 900, 1000, 3001))
        match chance.randrange(10):
            case 0:
                data = b""
            case 1:
                data = sender.encode(Hello(chance.choice((0, 1, 2)), chance.random() < 0.5, "x"))
            case 2:
                kind = chance.choice((1, 2, 3, 4, 5, 6, 7, 0x33, 0x82))
                payload = chance.randbytes(chance.choice((0, 1, 2, 9)))
                data = encode(Frame(kind, sender.sequence, payload))
            case 3:
                data = chance.randbytes(9)
            case _:
                data = sender.encode(chance.choice(orderly))
        told.append((now_ms, data))
    return told


def test_the_firmware_and_the_simulated_device_say_the_same(mcu_program: McuProgram) -> None:
    """To the same bytes at the same times, in every byte, also where the clock wraps around."""
    for seed in range(5):
        told = conversation(seed, start_ms=0)
        wrapped = [(ms + 2**32 - 60_000) % 2**32 for ms, _ in told]
        lines = [f"{ms} {b.hex() or '-'}" for ms, (_, b) in zip(wrapped, told, strict=True)]
        device, greeted = SimulatedMcu(), 0
        for (ms, data), line in zip(told, mcu_program.run("link", lines), strict=True):
            device.receive(data, ms)
            said = device.due(ms).hex()
            faces = device.faces
            state = [device.connected, device.ready, faces.total, len(faces.faces)]
            mine = f"{said} {' '.join(str(int(s)) for s in state)} {device.brightness}"
            shown = [f"{f.track}:2:{f.confidence}:{round(f.held_s * 10)}" for f in faces.faces]
            assert line == " ".join([mine, *shown]), (seed, ms)
            greeted += device.connected
        assert greeted > 100, "the conversation was one"


def test_the_firmware_meets_the_box_on_a_real_port(mcu_program: McuProgram) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    device = subprocess.Popen([mcu_program.path, "port"], stdin=ours, stdout=ours)
    link = SerialLink(SerialConfig(port=os.ttyname(theirs), brightness=30), "box")
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            status = link.session.status
            if link.problem is None and status is not None and status.brightness == 30:
                break
            time.sleep(0.01)
        assert link.problem is None
        assert link.session.device == "in C" and link.session.connections == 1
        assert status is not None and status.brightness == 30
    finally:
        link.close()
        device.kill()
        device.wait()
        os.close(ours)
        os.close(theirs)


def test_the_arduino_examples_compile(tmp_path: Path) -> None:
    """As C++11, which Arduino's compilers speak, against as much of its interface as they use."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler here: apt-get install g++")
    examples = sorted((MCU / "examples").rglob("*.ino"))
    assert examples
    stub = Path(__file__).parent / "arduino" / "Arduino.h"
    for example in examples:
        assert example.parent.name == example.stem, "Arduino wants a folder of the same name"
        done = subprocess.run(
            [
                compiler, "-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-x", "c++",
                "-include", stub, f"-I{MCU / 'src'}", "-c", example, "-o", tmp_path / "example.o",
            ],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
