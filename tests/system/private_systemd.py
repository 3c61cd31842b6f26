"""A systemd of a test's own: in namespaces of its own, over a folder as its /etc and /opt.

It runs real units under their own restrictions on a machine that is run by something else (a
container, a build machine), and nothing of the machine is changed.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import PROJECT
from tests.system.commands import until

MANAGER = Path("/lib/systemd/systemd")
TARGETS = ("sysinit", "basic", "network", "multi-user", "shutdown")
OF_THIS_MACHINE = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "hosts")
PYTHON = f"/opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
ENVIRONMENT = "PYTHONPATH=/opt/project:/opt/packages LD_LIBRARY_PATH=/opt/python/lib"
NAMESPACES = ("--pid", "--mount", "--ipc", "--uts", "--cgroup")

BOOT = """
set -e
echo $$ > {cgroup}/cgroup.procs
exec unshare --fork --kill-child {namespaces} --propagation private sh {root}/inside.sh
"""
INSIDE = """
set -e
mount -t proc proc /proc
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind {project} {root}/opt/project
mount --bind {packages} {root}/opt/packages
mount --bind {python} {root}/opt/python
mount --rbind {root}/opt /opt
mount --bind {root}/etc /etc
for folder in /run /var/lib /var/cache /var/log; do mount -t tmpfs tmpfs $folder; done
mount --make-rshared /  # as systemd itself would, were this no container: credentials need it
exec env -i PATH=$PATH container=test SYSTEMD_UNIT_PATH=/etc/systemd/system:/opt/units \\
    {manager} --unit=basic.target --log-target=console --show-status=no
"""


@dataclass(frozen=True)
class PrivateSystemd:
    """A manager that runs; `root` holds what it takes for /etc and /opt."""

    root: Path
    pid: int

    def run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command as if on the machine that it manages."""
        inside = ["nsenter", "--target", str(self.pid), "--pid", "--mount", "--ipc", "--uts"]
        return subprocess.run(
            [*inside, "--cgroup", *command], capture_output=True, text=True, timeout=100
        )

    def path(self, path: str) -> Path:
        """A path of that machine, as seen from here."""
        return Path(f"/proc/{self.pid}/root{path}")

    def main_process(self, unit: str) -> psutil.Process:
        """The unit's main process."""
        shown = self.run(["systemctl", "show", "--value", "--property=ControlGroup", unit]).stdout
        group = self.path(f"/sys/fs/cgroup{shown.strip()}/cgroup.procs")
        # Read from here, so that the numbers are those of this machine: the first is the oldest.
        return psutil.Process(min(int(line) for line in group.read_text().split()))


def why_not() -> str:
    """Why none can be run here, or empty."""
    if os.geteuid() != 0:
        return "needs root, for namespaces of its own"
    needed = [name for name in ("unshare", "nsenter", "systemctl") if shutil.which(name) is None]
    if needed or not MANAGER.exists():
        return f"needs {' '.join(needed) or MANAGER}: apt-get install systemd util-linux"
    if _cgroups() is None:
        return "needs a writable cgroup2 hierarchy"
    return ""


def _cgroups() -> Path | None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    found = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    return next((folder for folder in found if os.access(folder, os.W_OK)), None)


@contextmanager
def private_systemd(root: Path) -> Iterator[PrivateSystemd]:
    """A manager over `root`, with this project, what it needs and its Python in /opt.

    Wherever they are on this machine: a unit with ProtectHome= sees no home, and many a Python
    lives in one. What runs there is `PYTHON` in `ENVIRONMENT`. Raises `OSError` where the kernel
    does not let it start.
    """
    for name in ("opt/project", "opt/packages", "opt/python", "opt/units", "etc/systemd/system"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in OF_THIS_MACHINE:
        if Path("/etc", name).exists():
            shutil.copy(Path("/etc", name), root / "etc" / name)
    for name in TARGETS:
        unit = root / f"opt/units/{name}.target"
        unit.write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
    hierarchy = _cgroups()
    assert hierarchy is not None
    cgroup = Path(tempfile.mkdtemp(prefix="fer-edge-test-", dir=hierarchy))
    (root / "inside.sh").write_text(
        INSIDE.format(
            root=root,
            project=PROJECT,
            packages=sysconfig.get_path("purelib"),
            python=sys.base_prefix,
            manager=MANAGER,
        )
    )
    script = BOOT.format(cgroup=cgroup, root=root, namespaces=" ".join(NAMESPACES))
    with (root / "boot.log").open("w") as log:
        outer = subprocess.Popen(["sh", "-c", script], stdout=log, stderr=log)
    try:
        yield _booted(root, outer)
    finally:
        inner = psutil.Process(outer.pid).children(recursive=True) if outer.poll() is None else []
        outer.kill()  # its child is the first of its namespace, with which all the others go
        outer.wait()
        psutil.wait_procs(inner, 10)
        until(lambda: _removed(cgroup), 10)


def _booted(root: Path, outer: "subprocess.Popen[bytes]") -> PrivateSystemd:
    found: list[PrivateSystemd] = []

    def answers() -> bool:
        if outer.poll() is None:
            children = psutil.Process(outer.pid).children()
            if children and children[0].name() == "systemd":
                one = PrivateSystemd(root, children[0].pid)
                if one.run(["systemctl", "is-active", "basic.target"]).stdout == "active\n":
                    found.append(one)
        return bool(found) or outer.poll() is not None

    if not until(answers, 20) or not found:
        raise OSError(f"no systemd of its own runs here: {(root / 'boot.log').read_text()[-500:]}")
    return found[0]


def _removed(cgroup: Path) -> bool:
    """Remove the folders of a hierarchy, the deepest first; False while processes are in one."""
    try:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return False
    return True
