"""What the benchmarks of labelled faces ask for on their command lines, and the model they run."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.bundle import Bundle
from contract.command import Parser
from edge.bundles import bundle_to_run
from edge.cli import result_file
from runtime.choose import choose
from runtime.session import Session

BACKENDS = ("auto", "openvino", "onnxruntime")


def _whole(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}': give a whole number of 1 or more")
    return number


def parser(command: str, page: str | None, sampled: bool = False) -> argparse.ArgumentParser:
    """A command line that names faces, bundle, runtime, seed and result file.

    `page` is the command's docstring; `sampled` adds which share of the faces to take.
    """
    made = Parser(prog=command, description=(page or "").partition("\n")[0])
    add = made.add_argument
    add("--manifest", type=Path, required=True, metavar="CSV", help="labelled faces")
    add("--model", type=Path, metavar="BUNDLE", help="bundle (default: what the box would run)")
    add("--backend", choices=BACKENDS, default="auto", help="inference runtime (auto: the faster)")
    add("--seed", type=int, default=1337, help="of all that is random")
    if sampled:
        add("--every", type=_whole, default=1, metavar="N", help="only every N-th row")
    add("--json", type=result_file, required=True, metavar="FILE", help="where the figures go")
    return made


@contextmanager
def serving(given: argparse.Namespace) -> Iterator[tuple[Bundle, Session]]:
    """The bundle and runtime a command line named, on one thread, while the block runs.

    Raises `UserError`.
    """
    bundle = bundle_to_run(given.model)
    session = choose(bundle, threads=1, backend=given.backend).session
    try:
        yield bundle, session
    finally:
        session.close()


def about(bundle: Bundle, session: Session) -> dict[str, object]:
    """What a result file says of the model it measured."""
    return {
        "bundle": {"name": bundle.info.name, "sha256": bundle.sha256},
        "backend": session.backend,
    }
