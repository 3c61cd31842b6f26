"""`fer-edge label`: mark the expressions of a clip on a page that only this machine can open."""

import secrets
import signal
from collections.abc import Sequence
from pathlib import Path

import waitress.server

from contract.access import bind, url_of
from contract.command import Parser
from edge.offline.label_app import create_app, known_labels, labels_file
from edge.offline.label_clip import Clip

THREADS = 4


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; returns 0. Raises `UserError`."""
    parser = Parser(
        prog="fer-edge label",
        description="Mark on a local page, by keys 1 to 7, which expression a clip shows from when "
        "to when. Saved as labels.csv beside the clip.",
    )
    parser.add_argument("clip", type=Path, metavar="CLIP", help="a clip of fer-edge record")
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: a free one)"
    )
    given = parser.parse_args(arguments)
    clip = Clip(given.clip)
    try:
        known = len(known_labels(clip))
        with bind("127.0.0.1", given.port) as bound:
            token = secrets.token_urlsafe(16)
            app = create_app(clip, token, bound.getsockname()[1])
            server = waitress.server.create_server(
                app, sockets=[bound], threads=THREADS, ident=None
            )
            signal.signal(signal.SIGTERM, _interrupt)
            print(f"label {clip.file.name}: {url_of(bound)}{token}/", flush=True)
            print(
                f"{known} stretches are labelled so far; all is saved in {labels_file(clip.file)}; "
                "Ctrl-C ends",
                flush=True,
            )
            # Waitress takes Ctrl-C as the end and returns.
            server.run()
    finally:
        clip.close()
    return 0
