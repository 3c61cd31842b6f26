"""`fer-edge fetch-detector`: get YuNet, or say why the built-in cascade will do."""

from collections.abc import Sequence

from contract.command import Parser
from edge.detector_files import fetch_yunet


def main(arguments: Sequence[str]) -> int:
    """Always returns 0: without YuNet the program runs on the built-in Haar cascade."""
    Parser(
        prog="fer-edge fetch-detector",
        description="Get the YuNet face detector: from the folder FER_MODELS names, or by one "
        "download of at most 10 s.",
    ).parse_args(arguments)
    result = fetch_yunet()
    if result.path is not None:
        print(f"face detector: {result.path}")
    else:
        print(f"face detector: built-in Haar cascade ({result.reason})")
    return 0
