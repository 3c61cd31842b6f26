"""`fer-edge`: the program on the box, and its offline twins."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from contract.command import Parser, run_command
from contract.errors import UserError, nearest
from edge import logs
from edge.masking import credentials_of
from edge.notify import SOCKET_VARIABLE
from firmware_config.profile import DEFAULT, Profile, load_profile, profile_names
from firmware_config.purpose import require_purpose

PROGRAM = "fer-edge"

COMMANDS = {
    "doctor": ("edge.doctor", "say what is wrong with this box, and the mend; pack it for support"),
    "record": ("edge.offline.record_clip", "keep a short clip of your own camera, on purpose"),
    "label": ("edge.offline.label", "mark the expressions of a clip on a local page"),
    "check": ("edge.check", "check a profile, explain its keys"),
    "probe": ("edge.probe", "list the cameras of this machine and their formats as JSON"),
    "serial-monitor": ("edge.serial_monitor", "talk to the microcontroller, print every message"),
    "bundle": ("edge.bundle_command", "install a bundle on this box, roll back, list, verify"),
    "evaluate": ("edge.offline.evaluate", "run a manifest through the serving path, write metrics"),
    "replay": ("edge.offline.replay", "compute a logged session's labels and KPIs again"),
    "bench": ("edge.offline.bench", "measure latency, throughput, CPU and memory on a recording"),
    "corrections": ("edge.offline.corrections", "turn what was corrected on the page into labels"),
    "sessions": ("edge.offline.sessions_command", "build labelled test sessions from faces"),
    "score": ("edge.offline.score", "raw against smoothed labels on labelled sessions"),
    "tune": ("edge.offline.tune", "choose the smoothing on labelled sessions, write a profile"),
    "promote": ("edge.offline.promote", "judge a bundle against the current one, then install it"),
    "fit-crop": ("edge.offline.fit_crop", "measure how a detector's box maps to training frames"),
    "install": ("edge.install_command", "make this program a service that starts at boot"),
    "upgrade": ("edge.upgrade_command", "switch to another version, and back if it is no good"),
    "uninstall": ("edge.uninstall_command", "stop the services and leave nothing of them"),
    "fetch-detector": ("edge.offline.fetch", "get the YuNet face detector"),
}


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that decide what runs: profile, bundle, runtime, detector."""
    add = parser.add_argument
    add(
        "--profile", default=DEFAULT, metavar="NAME",
        help=f"device profile: a .toml file, or one of: {' '.join(profile_names())}",
    )  # fmt: skip
    add(
        "--model",
        type=Path,
        metavar="BUNDLE",
        help="bundle folder (default: the installed one, else the built-in)",
    )
    add("--backend", choices=("auto", "openvino", "onnxruntime"), help="inference runtime")
    add("--threads", type=int, metavar="N", help="inference threads")
    add("--detector", choices=("auto", "yunet", "haar"), help="face detector")


def result_file(text: str) -> Path:
    """Where a command writes its figures, checked before it spends a second on them.

    Raises `UserError` for a place where no file can be made.
    """
    file = Path(text)
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a file in it for the result")
    above = next(folder for folder in file.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"{file} cannot be written: {above} is no folder this user may write to")
    return file


def engine_overrides(given: argparse.Namespace) -> dict[str, Any]:
    """The profile keys that `add_engine_flags`' flags override."""
    values = {
        "runtime.bundle": given.model,
        "runtime.backend": given.backend,
        "runtime.threads": given.threads,
        "detector.kind": given.detector,
    }
    return {key: value for key, value in values.items() if value is not None}


def _parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  {PROGRAM} {name:15} {text}" for name, (_, text) in COMMANDS.items())
    parser = Parser(
        prog=PROGRAM,
        description="Say, live, which expression each face before a camera shows.",
        epilog=f"other commands:\n{commands}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--camera", metavar="X",
        help="/dev/videoN, a number, /dev/v4l/by-id/…, usb:VID:PID[:SERIAL], csi://N, rtsp:// or "
        "http:// address, video file, folder, demo, or scripted:FILE.toml",
    )  # fmt: skip
    add_engine_flags(parser)
    add("--host", help="address the dashboard listens on (default 127.0.0.1)")
    add("--port", type=int, help="port of the dashboard (default 8080; 0: any free one)")
    add("--no-dashboard", action="store_true", help="run without the dashboard")
    add("--session-dir", type=Path, metavar="DIR", help="folder of session logs")
    add("--no-session", action="store_true", help="write no session log")
    add(
        "--log", choices=get_args(logs.LogForm),
        help=f"form of the log; auto: JSON under systemd, else text (or set {logs.VARIABLE})",
    )  # fmt: skip
    add("--headless", action="store_true", help="accepted for clarity: no display is ever needed")
    return parser


def _profile(given: argparse.Namespace) -> Profile:
    values: dict[str, Any] = engine_overrides(given)
    flags = {
        "camera.source": given.camera,
        "dashboard.host": given.host,
        "dashboard.port": given.port,
        "output.session_dir": given.session_dir,
    }
    values.update({key: value for key, value in flags.items() if value is not None})
    if given.no_dashboard:
        values["dashboard.enabled"] = False
    if given.no_session:
        values["output.session"] = False
    return load_profile(given.profile, values)


def main(arguments: Sequence[str]) -> int:
    """The command; raises `UserError` for what the user can mend."""
    logs.set_up()
    if arguments and arguments[0] in COMMANDS:
        module = importlib.import_module(COMMANDS[arguments[0]][0])
        code: int = module.main(arguments[1:])
        return code
    if arguments and not arguments[0].startswith("-"):
        raise UserError(
            f"unknown command '{arguments[0]}'{nearest(arguments[0], COMMANDS)} "
            f"(one of {' '.join(COMMANDS)}, or --camera X)"
        )
    given = _parser().parse_args(arguments)
    if given.log:
        logs.set_up(given.log)
    profile = _profile(given)
    logs.hide(*credentials_of(profile.camera.source))
    if SOCKET_VARIABLE in os.environ:  # a service manager starts what is deployed
        require_purpose(profile.purpose, f"--profile {given.profile}")
    from edge.live import run_live  # after the flags, so that --help and mistakes answer at once

    return run_live(profile, lambda: _profile(given))


def run() -> int:
    """Entry point of `fer-edge`."""
    return run_command(PROGRAM, lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(run())
