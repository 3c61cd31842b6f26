"""A script of faults: read with care, and on exactly when it says."""

from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from edge.cameras.script import Fault, Kind, Script, find_script, load_script

GOOD = """
source = "demo"
fps = 15

[[fault]]
kind = "freeze"
at_s = 5.0
for_s = 3.0

[[fault]]
kind = "slow"
at_s = 10.0
for_s = 1.0
every_s = 4.0
fps = 5
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_script_says_which_fault_is_on_when(tmp_path: Path) -> None:
    script = load_script(find_script(str(write(tmp_path, GOOD))))
    assert script.source == "demo" and script.fps == 15 and script.width is None
    on = [t for t in range(25) if script.active("freeze", t)]
    assert on == [5, 6, 7]
    assert [t for t in range(25) if script.active("slow", t)] == [10, 14, 18, 22]
    assert script.ends_s("freeze", 6.5) == 8 and script.ends_s("freeze", 8) is None
    assert script.began_s("slow", 13.9) == 10 and script.began_s("slow", 9.9) is None


def test_overlapping_faults_of_a_kind_end_with_the_last() -> None:
    script = Script(
        fault=(
            Fault(kind="stuck", at_s=1, for_s=5),
            Fault(kind="stuck", at_s=2, for_s=1),
        )
    )
    assert script.ends_s("stuck", 2.5) == 6
    assert script.began_s("stuck", 9) == 2


EIGHTHS = st.integers(0, 400).map(lambda n: n / 8)
LENGTHS = st.integers(1, 40).map(lambda n: n / 8)


@given(at=EIGHTHS, length=LENGTHS, gap=st.none() | LENGTHS, t=EIGHTHS)
def test_a_fault_is_on_exactly_as_declared(
    at: float, length: float, gap: float | None, t: float
) -> None:
    every = None if gap is None else length + gap
    fault = Fault(kind="drop", at_s=at, for_s=length, every_s=every)
    begins = [at] if every is None else [at + n * every for n in range(500)]
    on = [begin for begin in begins if begin <= t < begin + length]
    assert fault.ends_s(t) == (on[0] + length if on else None)
    assert fault.began_s(t) == max((begin for begin in begins if begin <= t), default=None)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('kind = "freeze"', 'kind = "freze"', "line 6: fault.0.kind"),
        ("for_s = 3.0", "fors = 3.0", r"line 5: fault\.0\.for_s: field required"),
        ("every_s = 4.0", "evry_s = 4.0", r"line 14: unknown key 'fault\.1\.evry_s'.*'every_s'"),
        ("every_s = 4.0", "every_s = 0.5", "line 10: fault.1: .*longer than 'for_s'"),
        ("at_s = 10.0", "at_s = -1", r"line 12: fault\.1\.at_s: .*greater than or equal to 0"),
        ("fps = 5", "width = 5", "fault.1.width"),
        ("fps = 5\n", "\n", "line 10: fault.1: .*'slow' needs 'fps'"),
        ("for_s = 3.0", "for_s = 3.0\nfps = 3", "line 5: fault.0: .*'freeze' takes no 'fps'"),
        ("fps = 15", "rate = 15", "unknown key 'rate'"),
        ('source = "demo"', 'sorce = "demo"', "unknown key 'sorce', did you mean 'source'"),
        ("fps = 15", "fps = = 15", "not readable as TOML.*line 3"),
        ("fps = 15", "fps = nan", "fps"),
    ],
)
def test_a_mistake_in_a_script_is_one_line_with_its_place(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UserError, match=says) as caught:
        load_script(file)
    assert str(file) in str(caught.value)


def test_the_script_that_ships_has_every_fault_and_time_to_recover_from_each() -> None:
    script = load_script(find_script("faults"))
    assert {one.kind for one in script.fault} == set(get_args(Kind))
    spans = sorted((one.at_s, one.at_s + one.for_s) for one in script.fault)
    for (begin, end), (following, _) in pairwise(spans):
        assert following >= end + 3 or following == begin, "only what begins together may overlap"
