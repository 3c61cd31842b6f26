"""`fer-edge doctor`: what is wrong with this box, one line each with its mend."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contract.command import Parser
from contract.errors import UserError
from edge.cli import add_engine_flags, engine_overrides, result_file
from edge.doctor_checks import Box, Finding, examine
from edge.masking import Mask, configured_secrets, credentials_of
from edge.support_bundle import SUFFIX, pack
from firmware_config.profile import load_profile

ROOM = 14
"""Width of the column of names."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fer-edge doctor",
        description="Look at everything a live run needs and say what is wrong, with the mend. "
        "Exit code 0: nothing would fail; 1: something would.",
    )
    add = parser.add_argument
    add("--camera", metavar="X", help="the camera to look at (default: the profile's)")
    add("--host", help="address the dashboard is to listen on")
    add("--port", type=int, help="port the dashboard is to listen on")
    add("--session-dir", type=Path, metavar="DIR", help="folder of session logs")
    add("--json", action="store_true", help="as JSON, on stdout")
    add(
        "--bundle", type=result_file, metavar=f"FILE{SUFFIX}",
        help="pack the findings, versions, profile and logs for support: no image, no secret",
    )  # fmt: skip
    add_engine_flags(parser)
    return parser


def lines(findings: Sequence[Finding]) -> list[str]:
    """The findings for people, a line each."""
    return [
        f"{found.status:4}  {found.check:{ROOM}}  {found.what}"
        + (f"; mend: {found.mend}" if found.mend else "")
        for found in findings
    ]


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings for programs."""
    return {
        "fit": all(found.status != "fail" for found in findings),
        "findings": [asdict(found) for found in findings],
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command: 0 if no check failed, else 1. Raises `UserError`."""
    given = _parser().parse_args(arguments)
    if given.bundle is not None and not given.bundle.name.endswith(SUFFIX):
        raise UserError(f"--bundle {given.bundle}: give a name that ends in {SUFFIX}")
    flags = {
        "camera.source": given.camera,
        "dashboard.host": given.host,
        "dashboard.port": given.port,
        "output.session_dir": given.session_dir,
    }
    overrides = {key: value for key, value in flags.items() if value is not None}
    profile = load_profile(given.profile, {**engine_overrides(given), **overrides})
    mask = Mask([*configured_secrets(), *credentials_of(profile.camera.source)])
    found = examine(Box(profile))
    result = mask.tree(report(found))
    if given.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        for line in lines(found):
            print(mask(line))
    if given.bundle is not None:
        names = pack(given.bundle, result, profile, mask)
        print(f"packed for support: {given.bundle} ({', '.join(names)})")
    return 0 if result["fit"] else 1
