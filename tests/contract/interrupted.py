"""A process that installs a bundle in children of its own, each killed at a moment told on stdin.

`python -m tests.contract.interrupted STORE BUNDLE`, then a line per child: `call N` kills it at the
N-th file operation that Python announces (and fsync, which it does not), `after S` kills it after S
seconds. The answer is a line: `killed`, or `done` where the install ended before.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from contract.store import BundleStore

WATCHED = ("open", "os.", "shutil.", "tempfile.", "fcntl.")


def die_at_call(number: int) -> None:
    """SIGKILL to this process at its `number`-th file operation from here, before it is done."""
    made = 0
    fsync = os.fsync

    def count() -> None:
        nonlocal made
        made += 1
        if made == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, _: Any) -> None:
        if event.startswith(WATCHED):
            count()

    def counted(handle: int) -> None:
        count()
        fsync(handle)

    os.fsync = counted  # type: ignore[assignment]
    sys.addaudithook(watch)


def main(store: Path, bundle: Path) -> None:
    """Until stdin ends."""
    for line in sys.stdin:
        kind, moment = line.split()
        child = os.fork()
        if child == 0:
            if kind == "call":
                die_at_call(int(moment))
            BundleStore(store).install(bundle, keep=1)  # removing an old one may be interrupted too
            os._exit(0)
        if kind == "after":
            time.sleep(float(moment))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else "done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
