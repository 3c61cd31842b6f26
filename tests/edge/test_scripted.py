"""The scripted camera: every fault as a reader meets it, in time that is made up."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.faces import Image
from edge.cameras.base import CameraError, Device
from edge.cameras.demo import DemoCamera
from edge.cameras.factory import open_camera
from edge.cameras.script import Fault, Kind, Script, find_script, load_script
from edge.cameras.scripted import ScriptedCamera

EPOCH = 1024.0


class OverError(Exception):
    """Made-up time has come to its end: a schedule may well hold a reader for ever."""


class Made:
    """Time that passes only when slept, for 200 s."""

    def __init__(self, now: float = EPOCH) -> None:
        self.now = now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds
        if self.now > EPOCH + 200:
            raise OverError


class Numbered:
    """A scene whose picture k is blue k, green 200."""

    def open(self) -> None:
        pass

    def frame(self, index: int) -> Image:
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[..., 0], picture[..., 1] = index % 256, 200
        return picture

    def close(self) -> None:
        pass


def number(image: Image) -> int:
    return int(image[-1, 0, 0])


def make(
    clock: Made, *faults: Fault, fps: float = 8, epoch_s: float | None = EPOCH
) -> ScriptedCamera:
    return ScriptedCamera(
        "scripted:test", Script(fault=faults), Numbered(), size=(64, 48), fps=fps,
        asked=(64, 48, fps), epoch_s=epoch_s, monotonic=lambda: clock.now, sleep=clock.sleep,
    )  # fmt: skip


Seen = list[tuple[float, Image]]


def watch(camera: ScriptedCamera, clock: Made, until_s: float) -> Seen:
    """Every frame with its time, as a patient reader gets them that opens again when it must."""
    seen: Seen = []
    is_open = False
    while clock.now - EPOCH < until_s:
        try:
            if not is_open:
                camera.open()
                is_open = True
            image = camera.read()
            seen.append((clock.now - EPOCH, image))
        except OverError:
            break
        except CameraError as error:
            if error.gone and not is_open:
                clock.sleep(1 / 8)
            is_open = is_open and not error.gone
    return [(t, image) for t, image in seen if t < until_s]


def test_without_faults_every_frame_comes_when_due() -> None:
    clock = Made()
    seen = watch(make(clock), clock, 2.0)
    assert [t for t, _ in seen] == [k / 8 for k in range(16)]
    assert [number(image) for _, image in seen] == list(range(16))


def test_a_slow_reader_gets_the_newest_frame_at_once() -> None:
    clock = Made()
    camera = make(clock)
    camera.open()
    camera.read()
    clock.sleep(1.06)
    assert number(camera.read()) == 8 and clock.now == EPOCH + 1.06
    assert number(camera.read()) == 9 and clock.now == EPOCH + 9 / 8


@st.composite
def schedules(draw: st.DrawFn) -> list[Fault]:
    kinds = st.sampled_from(["drop", "disappear", "stuck"])
    eighths = st.integers(1, 32)
    faults = []
    for _ in range(draw(st.integers(0, 4))):
        length = draw(eighths) / 8
        gap = draw(st.none() | eighths)
        faults.append(
            Fault(
                kind=draw(kinds),
                at_s=draw(st.integers(0, 80)) / 8,
                for_s=length,
                every_s=None if gap is None else length + gap / 8,
            )
        )
    return faults


@given(faults=schedules())
def test_frames_come_exactly_while_no_fault_withholds_them(faults: list[Fault]) -> None:
    clock = Made()
    seen = watch(make(clock, *faults), clock, 16.0)
    free = [k / 8 for k in range(128) if all(one.ends_s(k / 8) is None for one in faults)]
    assert [t for t, _ in seen] == free
    assert [number(image) for _, image in seen] == [t * 8 for t in free]


@given(began=st.integers(0, 80), faults=schedules())
def test_a_camera_made_anew_goes_on_where_the_schedule_is(began: int, faults: list[Fault]) -> None:
    """As in another process after the first was killed: only time zero is handed on."""
    first, second = Made(), Made(EPOCH + began / 8)
    whole = watch(make(first, *faults), first, 14.0)
    rest = watch(make(second, *faults), second, 14.0)
    assert [(t, number(image)) for t, image in rest] == [
        (t, number(image)) for t, image in whole if t >= began / 8
    ]


def test_without_an_epoch_time_zero_is_the_first_open_and_later_ones_keep_it() -> None:
    clock = Made(5.0)
    camera = make(clock, Fault(kind="disappear", at_s=1, for_s=2), epoch_s=None)
    assert camera.device_present()
    clock.sleep(100)
    camera.open()
    with pytest.raises(CameraError, match="is gone"):
        while True:
            camera.read()
    assert clock.now == 106
    clock.sleep(1)
    with pytest.raises(CameraError, match="is not there: plug the camera in"):
        camera.open()
    clock.sleep(1)
    camera.open()
    assert number(camera.read()) == 24


def test_it_is_a_device_that_can_be_seen_to_come_back() -> None:
    clock = Made()
    camera = make(clock, Fault(kind="disappear", at_s=1, for_s=2, every_s=10))
    assert isinstance(camera, Device) and camera.live and camera.device() is None
    present = []
    for _ in range(14):
        present.append(camera.device_present())
        clock.sleep(1)
    assert [t for t, there in enumerate(present) if not there] == [1, 2, 11, 12]


def test_what_was_opened_before_it_disappeared_is_dead_even_when_it_is_back() -> None:
    clock = Made()
    camera = make(clock, Fault(kind="disappear", at_s=1, for_s=0.5))
    camera.open()
    camera.read()
    clock.sleep(3)
    assert camera.device_present()
    with pytest.raises(CameraError, match="is gone") as caught:
        camera.read()
    assert caught.value.gone
    camera.open()
    assert number(camera.read()) == 24


def test_a_read_without_a_frame_fails_in_two_seconds_as_a_devices_does() -> None:
    clock = Made()
    camera = make(clock, Fault(kind="drop", at_s=0, for_s=5))
    camera.open()
    for end in (2, 4):
        with pytest.raises(CameraError, match="gives no frames") as caught:
            camera.read()
        assert clock.now == EPOCH + end and not caught.value.gone
    camera.read()
    assert clock.now == EPOCH + 5


def test_a_stuck_read_and_a_stuck_open_do_not_return_until_they_are_over() -> None:
    clock = Made()
    camera = make(
        clock,
        Fault(kind="stuck_open", at_s=0, for_s=7),
        Fault(kind="stuck", at_s=8, for_s=9),
    )
    camera.open()
    assert clock.now == EPOCH + 7
    times = []
    for _ in range(10):
        camera.read()
        times.append(clock.now - EPOCH)
    assert times == [7 + k / 8 for k in range(8)] + [17, 17.125]


def during(kind: Kind, **more: float) -> tuple[list[Image], list[Image], list[Image]]:
    """The frames before, during and after a fault from 1 s to 2 s."""
    clock = Made()
    fault = Fault.model_validate({"kind": kind, "at_s": 1, "for_s": 1, **more})
    seen = watch(make(clock, fault), clock, 3.0)
    assert {image.dtype for _, image in seen} == {np.dtype(np.uint8)}
    return (
        [image for t, image in seen if t < 1],
        [image for t, image in seen if 1 <= t < 2],
        [image for t, image in seen if t >= 2],
    )


def test_frozen_frames_are_the_last_one_to_the_last_bit() -> None:
    before, frozen, after = during("freeze")
    assert len(frozen) == 8
    assert all(np.array_equal(image, before[-1]) for image in frozen)
    assert [number(image) for image in after] == list(range(16, 24))


def test_a_covered_lens_is_dark_but_its_frames_differ() -> None:
    before, dark, after = during("black")
    assert len(dark) == 8 and max(int(image.max()) for image in dark) <= 2
    assert not np.array_equal(dark[0], dark[1])
    assert min(image.mean() for image in before + after) > 50


def test_a_torn_frame_has_its_upper_half_from_the_frame_before() -> None:
    _, torn, after = during("tear")
    for k, image in enumerate(torn, start=8):
        assert (image[:24, :, 0] == k - 1).all() and (image[24:, :, 0] == k).all()
    assert (after[0][..., 0] == 16).all()


def test_frames_of_another_size_come_and_go() -> None:
    before, other, after = during("resolution", width=32, height=16)
    assert {image.shape for image in other} == {(16, 32, 3)}
    assert {image.shape for image in before + after} == {(48, 64, 3)}


def test_wrong_colour_swaps_red_and_blue_only() -> None:
    _, wrong, after = during("wrong_colour")
    assert [tuple(image[0, 0]) for image in wrong] == [(0, 200, k) for k in range(8, 16)]
    assert tuple(after[0][0, 0]) == (16, 200, 0)


def test_slow_gives_fewer_frames_evenly() -> None:
    _, slow, after = during("slow", fps=2)
    assert [number(image) for image in slow] == [8, 12] and len(after) == 8


def test_a_reader_may_draw_on_what_it_was_given() -> None:
    clock = Made()
    camera = make(clock, Fault(kind="freeze", at_s=0.5, for_s=1))
    camera.open()
    for _ in range(8):
        image = camera.read()
        assert (image[..., 1] == 200).all()
        image[:] = 0


def test_the_script_that_ships_shows_each_fault_to_a_reader() -> None:
    clock = Made()
    script = load_script(find_script("faults"))
    camera = ScriptedCamera(
        "scripted:faults", script, Numbered(), size=(64, 48), fps=30, asked=(64, 48, 30),
        epoch_s=EPOCH, monotonic=lambda: clock.now, sleep=clock.sleep,
    )  # fmt: skip
    seen = watch(camera, clock, 96.0)
    gaps = [round(b - a, 1) for (a, _), (b, _) in pairwise(seen) if b - a > 0.22]
    assert gaps == pytest.approx([0.3, 4.0, 8.0, 8.0], abs=0.15)
    assert {image.shape for _, image in seen} == {(48, 64, 3), (240, 320, 3)}
    assert seen[-1][0] > 95.9


# From a file


def write_clip(path: Path, levels: list[int]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for level in levels:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()


def open_scripted(text: str | Path, epoch_s: float | None = None) -> ScriptedCamera:
    camera = open_camera(f"scripted:{text}", width=640, height=480, fps=30, seed=0, epoch_s=epoch_s)
    assert isinstance(camera, ScriptedCamera)
    return camera


def test_a_clip_beside_the_script_is_played_over_and_over_in_its_own_size(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.avi", [0, 100, 200])
    (tmp_path / "s.toml").write_text('source = "a.avi"\nfps = 200')
    camera = open_scripted(tmp_path / "s.toml")
    camera.open()
    images = [camera.read() for _ in range(7)]
    camera.close()
    assert [image.mean() for image in images] == pytest.approx([0, 100, 200, 0, 100, 200, 0], abs=2)
    granted = camera.granted
    assert granted is not None and (granted.width, granted.height) == (64, 48)
    assert granted.notes == ("asked 640×480 at 30, got 64×48 at 200",)


def test_a_script_may_name_the_size_of_its_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.avi", [100])
    (tmp_path / "s.toml").write_text('source = "a.avi"\nwidth = 80\nheight = 64')
    camera = open_scripted(tmp_path / "s.toml")
    camera.open()
    assert camera.read().shape == (64, 80, 3)
    camera.close()


@pytest.mark.parametrize(
    ("source", "says"),
    [("missing.mkv", "no camera file at"), ("s.toml", "cannot be opened"), (".", "holds no image")],
)
def test_a_source_that_cannot_be_played_is_named_with_its_script(
    tmp_path: Path, source: str, says: str
) -> None:
    (tmp_path / "s.toml").write_text(f'source = "{source}"')
    with pytest.raises(UserError, match=says) as caught:
        open_scripted(tmp_path / "s.toml")
    assert f"{tmp_path / 's.toml'}: source" in str(caught.value)


def test_the_demo_scene_goes_on_where_it_was_in_a_camera_made_anew(
    tmp_path: Path, demo_portraits: None
) -> None:
    (tmp_path / "s.toml").write_text('source = "demo"\nwidth = 160\nheight = 120\nfps = 20')
    scene = DemoCamera(width=160, height=120, fps=20)
    scene.open()
    for ago_s in (7.0, 70.0):
        camera = open_scripted(tmp_path / "s.toml", time.monotonic() - ago_s)
        camera.open()
        image = camera.read()
        camera.close()
        # Which frame it is depends on how long opening took; it is one of the few due since.
        due = range(round(20 * ago_s), round(20 * ago_s) + 200)
        assert any(np.array_equal(image, scene.frame(k)) for k in due)


CHILD = """
import json, sys, time
from edge.cameras.demo import DemoCamera
from edge.cameras.factory import open_camera
given = json.loads(sys.argv[1])
camera = open_camera(**given)
try:
    camera.open()
    print("opened", round(time.monotonic() - given["epoch_s"], 1))
except Exception as error:
    print(error)
"""


def test_another_process_meets_the_same_schedule(tmp_path: Path) -> None:
    """All it is given is the JSON of the arguments: so a killed process can be started anew."""
    write_clip(tmp_path / "a.avi", [9])
    (tmp_path / "s.toml").write_text(
        'source = "a.avi"\n[[fault]]\nkind = "disappear"\nat_s = 1000\nfor_s = 500'
    )
    text = f"scripted:{tmp_path / 's.toml'}"
    run: Callable[[float], str] = lambda ago_s: subprocess.run(  # noqa: E731
        [
            sys.executable, "-c", CHILD,
            json.dumps({
                "text": text, "width": 640, "height": 480, "fps": 30, "seed": 0,
                "controls": None, "epoch_s": time.monotonic() - ago_s,
            }),
        ],
        capture_output=True, text=True, timeout=60, check=True, cwd=Path(__file__).parents[2],
    ).stdout  # fmt: skip
    assert "opened" in run(10.0)
    assert run(1010.0) == f"{text} is not there: plug the camera in\n"
