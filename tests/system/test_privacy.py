"""No pixel leaves: what a running box writes and whom it talks to, as the kernel saw it.

The whole process tree runs under strace. Nothing is opened for writing but the session log, the
caches and what is no file, and nobody is spoken to but this machine.
"""

import csv
import ipaddress
import json
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from contract.bundle import Bundle
from tests.system.commands import LIMIT_S, Running, environment, program
from tests.system.test_live import fetch, people

pytestmark = pytest.mark.usefixtures("demo_portraits")

CALLS = "open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
SOCKETS = "connect,bind,sendto,sendmsg,sendmmsg"
WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|O_TMPFILE")
NO_FILES = ("/dev/null", "/dev/shm/", "/proc/self/", "/dev/tty")
PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"\x00\x00\x01\x00")
PYTHONS_TRIAL = re.compile(r"[a-z0-9_]{8}")
"""Python tries by a file, gone at once, whether the folder for temporary files can be written."""
LONGEST_CELL = 40
"""A number in full precision is shorter; a picture in a cell would not be."""


def _needs_strace() -> str:
    """Why system calls cannot be watched here, or empty."""
    if shutil.which("strace") is None:
        return "needs strace: apt-get install strace"
    tried = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True)
    return f"strace may not trace here: {tried.stderr.decode()[:200]}" if tried.returncode else ""


@dataclass(frozen=True)
class Trace:
    """What a process tree asked of the kernel, a call a line."""

    lines: list[str]

    def written(self) -> set[Path]:
        """Every file that was opened for writing, or made, or named anew."""
        found: set[Path] = set()
        for line in self.lines:
            call = re.search(r"\b(\w+)\(", line)
            if call is None or call[1] not in CALLS.split(","):
                continue
            if call[1].startswith("open") and not WRITING.search(line):
                continue
            # A path, with the folder it counts from before it: AT_FDCWD</folder>, "name".
            pairs = re.findall(r'(?:<([^>]*)>, )?"((?:[^"\\]|\\.)*)"', line)
            assert pairs, line
            folder, name = pairs[-1]  # of two, as rename has, the new one
            found.add(Path(folder, name) if folder else Path(name))
        return found

    def addresses(self, call: str = r"\w+") -> set[str]:
        """IP addresses that were bound, connected or sent to."""
        addressed = [line for line in self.lines if re.search(rf"\b{call}\(", line)]
        found = re.findall(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"', "\n".join(addressed))
        return set(found)

    def families(self) -> set[str]:
        """The families of all socket addresses."""
        return set(re.findall(r"sa_family=(AF_\w+)", "\n".join(self.lines)))


@contextmanager
def traced(file: Path, *arguments: object, cache: Path, cwd: Path) -> Iterator[Running]:
    """A `fer-edge` under strace, ended by SIGTERM, which must end it well."""
    reason = _needs_strace()
    if reason:
        pytest.skip(reason)
    # The filter in the kernel keeps the many calls that are not watched at full speed.
    watch = ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-s", "300", "-o", str(file)]
    process = subprocess.Popen(
        [*watch, "-e", f"trace={CALLS},{SOCKETS}", program("fer-edge"), *map(str, arguments)],
        cwd=cwd,
        # Python keeps what it compiled beside the program: that is no business of this test.
        env=environment(cache, TMPDIR=str(cwd.parent / "tmp"), PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    one = Running(process)
    try:
        yield one
        (box,) = psutil.Process(process.pid).children()
        box.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0, one.log
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
        one._reader.join(5)
        assert process.stderr is not None
        process.stderr.close()


def check_files(trace: Trace, cwd: Path, cache: Path) -> None:
    """Only the session log, sockets and caches were written, and no picture is among them."""
    temporary = cwd.parent / "tmp"
    outside = {
        path
        for path in trace.written()
        if not path.is_relative_to(cwd / "sessions")
        and not path.is_relative_to(cache)
        and not str(path).startswith(NO_FILES)
        and not (path.parent == temporary and PYTHONS_TRIAL.fullmatch(path.name))
    }
    assert outside == set()
    assert list(temporary.iterdir()) == []
    assert {path.name for path in cwd.iterdir()} == {"sessions"}
    (session,) = (cwd / "sessions").iterdir()
    data = session.read_bytes()
    assert not any(magic in data for magic in PICTURES)
    header, *rows = data.decode().splitlines()
    assert len(header) < 10_000 and json.loads(header.split(" ", 3)[3])["camera"] == "demo"
    cells = [cell for row in csv.reader(rows) for cell in row]
    assert len(rows) >= 3 and max(map(len, cells)) <= LONGEST_CELL
    kept = {f.suffix for f in cache.rglob("*") if f.is_file() and f.name != "lock"}
    assert kept <= {".json", ".blob", ".cl_cache", ".onnx", ".xml", ".bin", ".npy"}, (
        "models and choices"
    )


def check_sockets(trace: Trace) -> None:
    """Nobody but this machine was spoken to, by whatever family."""
    assert trace.families() <= {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNSPEC"}
    assert all(ipaddress.ip_address(found).is_loopback for found in trace.addresses())


@pytest.fixture
def arguments(tiny: Bundle, tmp_path: Path) -> list[object]:
    profile = tmp_path / "calm.toml"
    profile.write_text('[camera]\nsource = "demo"\nfps = 10\n[runtime]\nthreads = 1\n')
    return ["--camera", "demo", "--model", tiny.folder, "--profile", profile]


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    folder = tmp_path / "cwd"
    folder.mkdir()
    (tmp_path / "tmp").mkdir()
    return folder


def test_a_headless_box_writes_its_session_log_and_speaks_to_nobody(
    arguments: list[object], tmp_path: Path, cwd: Path, cache: Path
) -> None:
    file = tmp_path / "trace"
    with traced(file, *arguments, "--no-dashboard", cache=cache, cwd=cwd) as box:
        box.said("first result")
        time.sleep(1)
    trace = Trace(file.read_text().splitlines())
    assert any(path.suffix == ".csv" for path in trace.written()), "nothing was traced"
    check_files(trace, cwd, cache)
    check_sockets(trace)
    assert trace.addresses() == set()


def test_with_a_dashboard_only_loopback_listens_and_no_picture_is_written(
    arguments: list[object], tmp_path: Path, cwd: Path, cache: Path
) -> None:
    file = tmp_path / "trace"
    with traced(file, *arguments, "--port", 0, cache=cache, cwd=cwd) as box:
        box.said("first result")
        deadline = time.monotonic() + LIMIT_S
        while len(people(box.url)) != 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert fetch(f"{box.url}/readyz")[0] == 200
        with urllib.request.urlopen(f"{box.url}/stream.mjpg", timeout=LIMIT_S) as picture:
            assert PICTURES[0] in picture.read(3000), "the page is watched meanwhile"
    trace = Trace(file.read_text().splitlines())
    check_files(trace, cwd, cache)
    check_sockets(trace)
    assert trace.addresses("bind") == {"127.0.0.1"}
    unix = {
        Path(found)
        for found in re.findall(r'bind\([^"]*sun_path="([^"@]+)"', "\n".join(trace.lines))
    }
    assert unix and all(path.is_relative_to(cwd.parent / "tmp") for path in unix)


def test_this_test_would_see_a_file_and_a_call_abroad() -> None:
    trace = Trace(
        [
            '7 openat(AT_FDCWD</home/box>, "face.jpg", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3',
            '7 openat(AT_FDCWD</home/box>, "read.txt", O_RDONLY|O_CLOEXEC) = 3',
            '8 openat(5</data>, "x", O_RDWR <unfinished ...>',
            '8 rename("/data/x", "/data/y") = 0',
            '8 creat("/data/z", 0600) = -1 EACCES (Permission denied)',
            "9 connect(4<socket:[1]>, {sa_family=AF_INET, sin_port=htons(443), "
            'sin_addr=inet_addr("192.0.2.1")}, 16) = 0',
            '9 sendto(4<socket:[1]>, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(53), '
            'sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), '
            "sin6_scope_id=0}, 28) = 1",
        ]
    )
    assert trace.written() == {
        Path("/home/box/face.jpg"), Path("/data/x"), Path("/data/y"), Path("/data/z"),
    }  # fmt: skip
    assert trace.addresses() == {"192.0.2.1", "2001:db8::1"}
    assert trace.addresses("connect") == {"192.0.2.1"}
    with pytest.raises(AssertionError):
        check_sockets(trace)
