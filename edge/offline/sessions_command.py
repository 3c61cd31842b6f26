"""`fer-edge sessions`: build labelled test sessions, or fit how strongly they are spoilt."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from contract.command import Parser
from contract.errors import UserError
from contract.faces import Image, read_image
from contract.files import write_text_atomic
from contract.manifest import SPLITS, Manifest, read_manifest
from edge.cameras.factory import open_camera
from edge.cli import result_file
from edge.detect import make_detector
from edge.offline.degrade import STRENGTHS, read_strengths
from edge.offline.degrade_fit import as_toml, fit, measure_clips
from edge.offline.fit_crop import evenly
from edge.offline.sessions import plan_session, write_plan

FIT_FACES = 150


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-edge sessions", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "sequences of held expressions before a simulated webcam, from labelled faces"
    build = commands.add_parser("build", help=text, description=text)
    add = build.add_argument
    add("--manifest", type=Path, required=True, metavar="CSV", help="labelled faces")
    add(
        "--split", choices=SPLITS, required=True,
        help="the rows to take: train or calib to tune on, val to report on",
    )  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="gets a folder per session")
    add("--count", type=int, default=1, metavar="N", help="how many sessions (default 1)")
    add("--seed", type=int, default=1, metavar="S", help="of the first session (default 1)")
    add("--seconds", type=float, default=60.0, metavar="T", help="length of one (default 60)")
    add("--fps", type=float, default=30.0, metavar="F", help="frame rate (default 30)")
    add(
        "--any-face", action="store_true",
        help="take images too in which the detector finds no face",
    )  # fmt: skip
    text = "measure recordings and write the strengths that built sessions use"
    fitting = commands.add_parser("fit", help=text, description=text)
    add = fitting.add_argument
    add("clips", nargs="+", metavar="CLIP", help="recordings of people before webcams")
    add("--manifest", type=Path, required=True, metavar="CSV", help="faces sessions are made of")
    add(
        "--out", type=result_file, default=STRENGTHS, metavar="FILE",
        help="where the strengths go (default: the program's own)",
    )  # fmt: skip
    return parser


def _build(given: argparse.Namespace) -> int:
    for name, least, most in (("count", 1, 10_000), ("seconds", 4, 3600), ("fps", 1, 240)):
        value = getattr(given, name)
        if not least <= value <= most:
            raise UserError(f"--{name} {value:g}: give {least} to {most}")
    if given.seed < 0:
        raise UserError(f"--seed {given.seed}: give 0 or more")
    manifest = read_manifest(given.manifest)
    strengths = read_strengths()
    detector = None if given.any_face else make_detector()
    for seed in range(given.seed, given.seed + given.count):
        plan = plan_session(
            manifest, split=given.split, seed=seed, seconds=given.seconds, fps=given.fps,
            strengths=strengths, detector=detector,
        )  # fmt: skip
        folder = given.out / f"{given.split}-{seed}"
        try:
            write_plan(folder, plan)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror}); name another --out"
            ) from None
        print(f"{folder}: {plan.segments[-1].end_s:g} s in {len(plan.segments)} segments")
    return 0


def _faces(manifest: Manifest) -> list[Image]:
    images = []
    for row in evenly(manifest.rows, FIT_FACES):
        image = read_image(manifest.path(row))
        if image is None:
            raise UserError(f"{manifest.place(row)} cannot be decoded; restore it")
        images.append(image)
    return images


def _fit(given: argparse.Namespace) -> int:
    faces = _faces(read_manifest(given.manifest))
    clips = []
    for text in given.clips:
        clip = open_camera(text, width=640, height=480, fps=30.0, seed=0, paced=False)
        if clip.live:
            raise UserError(f"{text} is no recording; a fit needs files")
        clips.append(clip)
    measured, used = measure_clips(clips)  # type: ignore[arg-type]  # what is not live is a recording
    found = fit(measured, faces)
    names = " ".join(shlex.quote(Path(text).name) for text in given.clips)
    command = f"fer-edge sessions fit {names} --manifest {given.manifest.name}"
    text = as_toml(found, measured, used, command)
    write_text_atomic(given.out, text)
    print(text, end="")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = _parser().parse_args(arguments)
    return _build(given) if given.command == "build" else _fit(given)
