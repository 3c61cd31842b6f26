"""`fer-quantize`: a float bundle → an INT8 bundle that passed the gate."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from contract.bundle import open_bundle
from contract.command import Parser, run_command
from contract.manifest import read_manifest
from quantize.candidates import TARGETS
from quantize.convert import Options, quantize_bundle
from quantize.gate import NAMES, PORTABILITY, Bounds, waivers
from quantize.source import check_out, default_out, newest_float_bundle

PROGRAM = "fer-quantize"


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not in {least:g} to {most:g}")
        return value

    parse.__name__ = "number"
    return parse


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    parse.__name__ = "whole number"
    return parse


def _parser() -> argparse.ArgumentParser:
    bounds = Bounds()
    parser = Parser(
        prog=PROGRAM,
        description="Quantize a float bundle to INT8. The rows of --calib are divided by a seed: "
        "ranges come from one part, and the gate is measured on the other.",
        epilog="Exit code: 0 with a bundle written; 2 if something is wrong with the input, or the "
        "INT8 model did not pass the gate.",
    )
    add = parser.add_argument
    add("--calib", type=Path, required=True, metavar="CSV", help="manifest of calib or val rows")
    add(
        "--model", type=Path, metavar="BUNDLE",
        help="the float bundle (default: the newest under runs/)",
    )  # fmt: skip
    add(
        "--out", type=Path, metavar="BUNDLE",
        help="where the INT8 bundle goes (default: bundles/<name>-int8)",
    )  # fmt: skip
    add(
        "--report", type=Path, metavar="CSV",
        help="labelled images the INT8 model is also measured on, for its card",
    )  # fmt: skip
    add("--protocol", default="argmax", help="how --report's labels were made; recorded only")
    add("--seed", type=_whole(0), default=0, help="divides the rows (default: %(default)s)")
    add(
        "--threads", type=_whole(1), default=len(os.sched_getaffinity(0)),
        help="inference threads (default: all cores, here %(default)s)",
    )  # fmt: skip
    for flag, name, least, most, metavar, what in (
        ("--max-accuracy-drop", "accuracy_drop", -100, 100, "POINTS", "largest loss of accuracy"),
        ("--min-agreement", "agreement", 0, 101, "PERCENT", "least share of rows answered alike"),
        ("--max-macro-f1-drop", "macro_f1_drop", -100, 100, "POINTS",
         "largest loss of macro-F1 that one-sided 95 %% confidence must exclude"),
        ("--max-dp", "dp_p99", 0, 1, "P", "largest 99th percentile of |Δp|"),
        ("--max-size", "size_mb", 0, 1000, "MB", "largest INT8 artifact, in 10⁶ bytes"),
        ("--max-ece-rise", "ece_rise", -1, 1, "E", "largest rise of the calibration error"),
        ("--min-speed-up", "speed_up", 0, 100, "X", "least speed-up over float, same runtime"),
    ):  # fmt: skip
        add(
            flag, dest=name, type=_number(least, most), default=getattr(bounds, name),
            metavar=metavar, help=f"{what} (default: %(default)s)",
        )  # fmt: skip
    add(
        "--allow", action="append", default=[], metavar="NAME",
        help=f"waive a bound: {' '.join((*NAMES, PORTABILITY))}; recorded in the bundle",
    )  # fmt: skip
    add("--no-speed", action="store_true", help="measure no latency: for another device's bundle")
    add("--quick", action="store_true", help="try only the default configuration of each runtime")
    add(
        "--target", choices=TARGETS, default="cpu",
        help="cpu: OpenVINO and ONNX Runtime; jetson: QDQ for TensorRT, untested on hardware "
        "(default: %(default)s)",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError` for what the user can mend."""
    given = _parser().parse_args(arguments)
    source = open_bundle(given.model) if given.model else newest_float_bundle(Path("runs"))
    out = given.out or default_out(source)
    check_out(out, source)
    manifest = read_manifest(given.calib)
    bounds = Bounds(**{field.name: getattr(given, field.name) for field in fields(Bounds)})
    options = Options(
        seed=given.seed, threads=given.threads, bounds=bounds, waive=waivers(given.allow),
        speed=not given.no_speed and given.target == "cpu", quick=given.quick,
        target=given.target, protocol=given.protocol,
        report=read_manifest(given.report) if given.report else None,
    )  # fmt: skip
    quantize_bundle(source, manifest, out, options)
    print(f"bundle: {out}")
    return 0


def run() -> int:
    """The `fer-quantize` command."""
    return run_command(PROGRAM, lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(run())
