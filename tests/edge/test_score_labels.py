"""Labels of a recording: what is written is read, and what is wrong is named with its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from edge.offline.score_labels import Segment, read_labels, write_labels

HEADER = "start_s,end_s,label\n"


@given(
    parts=st.lists(
        st.tuples(st.floats(0, 5), st.floats(0.01, 5), st.sampled_from(EXPRESSIONS)),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_written_is_read(
    parts: list[tuple[float, float, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    segments, at = [], 0.0
    for gap, length, label in parts:
        segments.append(Segment(at + gap, at + gap + length, label))
        at = segments[-1].end_s
    file = tmp_path_factory.mktemp("labels") / "labels.csv"
    write_labels(file, segments)
    assert read_labels(file) == tuple(segments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("start,end,label\n0,1,happy\n", "line 1: columns 'start,end,label'"),
        ("", "line 1: columns ''"),
        (HEADER, "no rows under the header"),
        (HEADER + "0,1\n", "line 2: 2 fields"),
        (HEADER + "0,1,hapy\n", "line 2: unknown label 'hapy', did you mean 'happy'"),
        (HEADER + "0,1,happy\n\nx,3,sad\n", "line 4: start_s 'x' is not a time"),
        (HEADER + "0,nan,happy\n", "line 2: end_s 'nan' is not a time"),
        (HEADER + "-1,1,happy\n", "line 2: start_s '-1' is not a time"),
        (HEADER + "2,1,happy\n", "line 2: end_s 1 is not after start_s 2"),
        (HEADER + "0,2,happy\n1,3,sad\n", "line 3: start_s 1 is before the end"),
    ],
)
def test_a_wrong_row_is_one_line_with_its_place(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_labels(file)
    assert str(error.value).startswith(f"{file}: ") and says in str(error.value)


def test_missing_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no labels at .*labels\.csv; mark them"):
        read_labels(tmp_path / "labels.csv")
