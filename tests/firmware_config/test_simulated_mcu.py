"""The simulated device as a program: a port that others can use, and faults on demand."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import serial

from contract.errors import UserError
from firmware_config.serial_protocol import Hello, Receiver, parse
from firmware_config.simulated_mcu import SimulatedMcu, main


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not condition():
        time.sleep(0.01)
    return condition()


def test_it_offers_a_port_and_takes_faults_by_lines(tmp_path: Path) -> None:
    link = tmp_path / "mcu"
    program = subprocess.Popen(
        [sys.executable, "-m", "firmware_config.simulated_mcu", link],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdin and program.stdout and program.stderr
    try:
        assert program.stdout.readline().startswith(f"port {link};")
        with serial.Serial(str(link), 115_200, timeout=5) as port:
            (frame,) = Receiver().feed(port.read_until(b"\0"))
        assert parse(frame) == Hello(1, False, "simulated")
        program.stdin.write("explode\nunplug 60\n")
        program.stdin.flush()
        assert program.stderr.readline() == "not understood: no such fault: explode\n"
        assert until(lambda: not link.is_symlink())
    finally:
        program.kill()
        program.communicate()


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="is no link; name another place"):
        main([str(tmp_path / "mine")])
    with pytest.raises(UserError, match="no link can be made there"):
        main([str(tmp_path / "no" / "such" / "folder")])


@pytest.mark.parametrize("text", ["explode", "", "silent", "silent soon", "corrupt 1.5"])
def test_a_fault_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        SimulatedMcu().fault(text, 0)
