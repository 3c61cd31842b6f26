"""The microcontroller's C code as a program of this machine, and the protocol written down twice.

`by_hand` lays out a frame from the description alone, by other means than the project's code: it is
what both implementations and the committed vectors are held against.
"""

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from firmware_config.serial_protocol import Frame

MCU = Path(__file__).parents[2] / "firmware_config" / "mcu"
HOST = Path(__file__).parent / "mcu_host.c"
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow")


def crc32_by_hand(data: bytes) -> int:
    """By polynomial division, with bits in the order in which Ethernet sends them."""
    register = 0xFFFFFFFF
    for byte in data:
        for place in range(8):
            carry = (register >> 31) ^ (byte >> place & 1)
            register = (register << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if carry else 0)
    return int(f"{register:032b}"[::-1], 2) ^ 0xFFFFFFFF


def cobs_by_hand(data: bytes) -> bytes:
    """Every zero says how far the next one is, counting one before the data and one after."""
    marked = bytearray(b"\0" + data + b"\0")
    following = len(marked) - 1
    for place in range(len(marked) - 2, -1, -1):
        if marked[place] == 0:
            marked[place] = following - place
            following = place
    return bytes(marked[:-1])


def by_hand(frame: Frame) -> bytes:
    """The bytes of a frame, delimiter and all."""
    body = bytes([frame.type, frame.sequence % 256, frame.sequence // 256, len(frame.payload)])
    body += frame.payload
    return cobs_by_hand(body + crc32_by_hand(body).to_bytes(4, "little")) + b"\0"


@dataclass(frozen=True)
class McuProgram:
    """The compiled host program of the C code (`mcu_host.c` says what it understands)."""

    path: Path

    def run(self, mode: str, lines: Iterable[str]) -> list[str]:
        """What it answers to each line."""
        told = subprocess.run(
            [self.path, mode], input="\n".join(lines) + "\n", capture_output=True, text=True,
            check=True, timeout=600,
        )  # fmt: skip
        return told.stdout.splitlines()

    def encode(self, frames: Iterable[Frame]) -> list[bytes]:
        """Each frame's bytes."""
        lines = (f"e {f.type} {f.sequence} {f.payload.hex() or '-'}" for f in frames)
        return [bytes.fromhex(line) for line in self.run("codec", lines)]

    def decode(self, chunks: Iterable[bytes]) -> tuple[list[Frame], int, int]:
        """The frames of a stream in chunks, and how much was damaged and lost."""
        frames, damaged, lost = [], 0, 0
        for line in self.run("codec", (f"d {chunk.hex() or '-'}" for chunk in chunks)):
            *found, damaged_now, lost_now = line.split()
            for text in found:
                kind, sequence, payload = text.split(":")
                frames.append(Frame(int(kind), int(sequence), bytes.fromhex(payload)))
            damaged, lost = int(damaged_now), int(lost_now)
        return frames, damaged, lost

    def flips_passed(self, encoded: Iterable[bytes]) -> tuple[int, int]:
        """Of every single-bit flip of these frames: how many flips, how many passed for a frame."""
        tried = passed = 0
        for line in self.run("codec", (f"f {one.hex()}" for one in encoded)):
            flips, through = map(int, line.split())
            tried, passed = tried + flips, passed + through
        return tried, passed


def compiler() -> str | None:
    """A C compiler of this machine."""
    return shutil.which("gcc") or shutil.which("cc")


def build(folder: Path) -> McuProgram:
    """Compile the reference strictly as C99, and the host program around it.

    Fails with the compiler's words for the slightest warning.
    """
    cc, link = compiler(), folder / "fer_link.o"
    assert cc is not None
    include = f"-I{MCU / 'src'}"
    source = MCU / "src" / "fer_link.c"
    for command in (
        [cc, "-std=c99", *STRICT, "-O2", include, "-c", source, "-o", link],
        [cc, "-std=c99", *STRICT, "-O2", include, HOST, link, "-o", folder / "mcu_host"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return McuProgram(folder / "mcu_host")
