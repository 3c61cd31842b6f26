"""`fer-edge probe`: the cameras of this machine as JSON, with how to name each for good."""

import argparse
import grp
import json
import os
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from contract.command import Parser
from edge.cameras.identity import DEV, SYSFS, VideoNode, video_nodes
from edge.cameras.v4l2_formats import VideoDevice, VideoFormat, open_and_describe


@dataclass(frozen=True)
class CameraInfo:
    """A camera that is plugged in; `problem` says why its formats could not be asked for.

    `camera` is the form of `--camera` that goes on naming it when nodes are renumbered: its USB
    id, with the serial where there is one; else its link by port; else the node.
    """

    camera: str
    node: str
    title: str
    driver: str
    bus: str
    usb: str
    by_id: tuple[str, ...]
    by_path: tuple[str, ...]
    mode: str
    owner: str
    usable: bool
    problem: str
    formats: tuple[VideoFormat, ...]


def _links(folder: Path, node: Path) -> tuple[str, ...]:
    """The links in a folder that lead to a node."""
    try:
        return tuple(sorted(str(one) for one in folder.iterdir() if one.resolve() == node))
    except OSError:
        return ()


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _camera(one: VideoNode, unique: bool, by_path: tuple[str, ...]) -> str:
    if one.usb is not None and unique:
        return str(one.usb)
    return by_path[0] if by_path else str(one.node)


def list_cameras(
    sysfs: Path = SYSFS,
    dev: Path = DEV,
    describe: Callable[[Path], VideoDevice] = open_and_describe,
) -> list[CameraInfo]:
    """Every capture device of this machine, by the number of its node."""
    nodes = video_nodes(sysfs, dev)
    found = []
    for one in nodes:
        problem, mode, owner = "", "", ""
        device = VideoDevice("", "", "", True, ())
        try:
            status = one.node.stat()
            mode, owner = stat.filemode(status.st_mode), _group(status.st_gid)
            device = describe(one.node)
        except PermissionError:
            problem = f"add this user to the group '{owner}'"
        except OSError as error:
            problem = f"{error.strerror}: plug it in again"
        if not device.capture:
            continue
        by_path = _links(dev / "v4l" / "by-path", one.node)
        unique = sum(one.usb == other.usb for other in nodes) == 1
        found.append(
            CameraInfo(
                camera=_camera(one, unique, by_path),
                node=str(one.node),
                title=one.title or device.card,
                driver=device.driver,
                bus=device.bus,
                usb="" if one.usb is None else str(one.usb),
                by_id=_links(dev / "v4l" / "by-id", one.node),
                by_path=by_path,
                mode=mode,
                owner=owner,
                usable=not problem and os.access(one.node, os.R_OK | os.W_OK),
                problem=problem,
                formats=device.formats,
            )
        )
    return found


def main(arguments: Sequence[str]) -> int:
    """The command; always 0, as no camera is an answer too."""
    Parser(
        prog="fer-edge probe",
        description="List the cameras of this machine, their formats, sizes and rates, as JSON.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    cameras = list_cameras()
    json.dump({"cameras": [asdict(one) for one in cameras]}, sys.stdout, indent=2)
    print()
    if not cameras:
        print(
            "no camera here: plug one in, or try --camera demo; network cameras (rtsp://, http://) "
            "are not listed",
            file=sys.stderr,
        )
    return 0
