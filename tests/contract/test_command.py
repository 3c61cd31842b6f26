"""How every command ends: one line and a code, never a traceback for a user's mistake."""

import subprocess
import sys

import pytest

from contract.command import Parser, run_command
from contract.errors import UserError


def _raise(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("m.csv: line 3: no"), 2, "fer-x: m.csv: line 3: no\n"),
        (KeyboardInterrupt(), 130, "fer-x: interrupted\n"),
    ],
)
def test_a_command_ends_in_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("fer-x", lambda: _raise(error)) == code
    assert capsys.readouterr() == ("", line)


def test_a_command_that_succeeds_gives_its_own_code() -> None:
    assert run_command("fer-x", lambda: 0) == 0
    assert run_command("fer-x", lambda: 3) == 3


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError):
        run_command("fer-x", lambda: _raise(RuntimeError("a bug")))


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in `fer-edge … | head -1`."""
    program = (
        "from contract.command import run_command\n"
        "def main():\n"
        "    for n in range(100_000):\n"
        "        print('line', n)\n"
        "    return 0\n"
        "raise SystemExit(run_command('fer-x', main))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_a_parsers_complaint_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="fer-x")
    parser.add_argument("--frames", type=int)
    for arguments in (["--frames", "many"], ["--unknown"]):
        assert run_command("fer-x", lambda: bool(parser.parse_args(arguments))) == 2  # noqa: B023
        line = capsys.readouterr().err
        assert line.startswith("fer-x: ")
        assert line.endswith("; see fer-x --help\n")
        assert line.count("\n") == 1
