"""A manifest comes back as it was written, and a faulty one is refused with its line."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import sha256_file
from contract.manifest import SPLITS, VOTES, Row, read_manifest, write_manifest

HEADER = "path,label,split,source"

words = st.text("abcXYZ09 _-.,;'\"/éß顔", max_size=20)
votes = st.one_of(st.integers(0, 100).map(float), st.integers(0, 1000).map(lambda n: n / 1000))


@st.composite
def manifests(draw: st.DrawFn) -> list[Row]:
    """Rows with votes on all or on none, as a manifest holds them."""
    with_votes = draw(st.booleans())
    seven = st.tuples(*[votes] * len(EXPRESSIONS))
    row = st.builds(
        Row,
        path=words.filter(bool),
        label=st.sampled_from(EXPRESSIONS),
        split=st.sampled_from(SPLITS),
        source=words,
        votes=seven if with_votes else st.none(),
        group=words,
        sha256=words,
    )
    return draw(st.lists(row, min_size=1, max_size=10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests")


@given(rows=manifests())
def test_rows_come_back_as_they_were_written(folder: Path, rows: list[Row]) -> None:
    file = folder / "m.csv"
    write_manifest(file, rows)
    manifest = read_manifest(file, check_files=False)
    assert list(manifest.rows) == rows
    assert manifest.sha256 == sha256_file(file)
    assert [EXPRESSIONS[label] for label in manifest.labels()] == [row.label for row in rows]
    for split in SPLITS:
        assert list(manifest.select(split).rows) == [row for row in rows if row.split == split]


def written(folder: Path, lines: Sequence[str], images: Sequence[str] = ("a.png", "b.png")) -> Path:
    """A manifest of these lines, with the images it may speak of."""
    for image in images:
        (folder / image).touch()
    file = folder / "m.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_paths_start_at_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").touch()
    manifest = read_manifest(written(tmp_path, [HEADER, "images/a.png,happy,val,x"]))
    assert manifest.path(manifest.rows[0]) == tmp_path / "images/a.png"
    assert manifest.place(manifest.rows[0]).startswith(f"{tmp_path / 'm.csv'}: line 2: ")


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    """Spreadsheets write one."""
    manifest = read_manifest(written(tmp_path, ["\ufeff" + HEADER, "a.png,sad,train,x"]))
    assert manifest.rows[0].path == "a.png"


def test_windows_line_ends_and_blank_lines_are_read(tmp_path: Path) -> None:
    file = written(tmp_path, [HEADER])
    file.write_bytes(f"{HEADER}\r\na.png,sad,train,x\r\n\r\nb.png,fear,val,x\r\n".encode())
    manifest = read_manifest(file)
    assert [(row.path, row.label, row.line) for row in manifest.rows] == [
        ("a.png", "sad", 2),
        ("b.png", "fear", 4),
    ]


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, ["source,split,label,path", "x,val,happy,a.png"]))
    assert manifest.rows[0] == Row("a.png", "happy", "val", "x")


def test_votes_are_read_by_name(tmp_path: Path) -> None:
    backwards = ",".join(reversed(VOTES))
    manifest = read_manifest(
        written(tmp_path, [f"{HEADER},{backwards}", "a.png,happy,val,x,6,5,4,3,2,1,0"])
    )
    assert manifest.rows[0].votes == (0, 1, 2, 3, 4, 5, 6)


ALL_VOTES = f"{HEADER},{','.join(VOTES)}"
FAULTS = {
    "no header": ([""], "line 1: column 'path' is missing"),
    "column missing": (["path,label,source", "a.png,sad,x"], "line 1: column 'split' is missing"),
    "column unknown": (
        [f"{HEADER},grup", "a.png,sad,val,x,1"],
        "line 1: unknown column 'grup', did you mean 'group'?",
    ),
    "some votes": (
        [f"{HEADER},votes_happy", "a.png,sad,val,x,1"],
        "line 1: column 'votes_angry' is missing; votes come all or none",
    ),
    "negative vote": (
        [ALL_VOTES, "a.png,sad,val,x,0,0,0,0,0,0,0", "b.png,sad,val,x,0,0,-1,0,0,0,0"],
        "line 3: votes_fear '-1' is not a count of votes",
    ),
    "vote not a number": ([ALL_VOTES, "a.png,sad,val,x,0,0,0,0,0,0,many"], "line 2: votes_neutral"),
    "vote nan": ([ALL_VOTES, "a.png,sad,val,x,nan,0,0,0,0,0,0"], "line 2: votes_angry 'nan'"),
    "vote infinite": ([ALL_VOTES, "a.png,sad,val,x,inf,0,0,0,0,0,0"], "line 2: votes_angry 'inf'"),
    "vote empty": ([ALL_VOTES, "a.png,sad,val,x,,0,0,0,0,0,0"], "line 2: votes_angry ''"),
    "too few fields": ([HEADER, "a.png,sad,val,x", "b.png,sad"], "line 3: the number of fields"),
    "too many fields": ([HEADER, "a.png,sad,val,x,y"], "line 2: the number of fields"),
    "label": (
        [HEADER, "a.png,sad,val,x", "b.png,hapy,val,x"],
        "line 3: unknown label 'hapy', did you mean 'happy'?",
    ),
    "label's case": ([HEADER, "a.png,Happy,val,x"], "unknown label 'Happy', did you mean 'happy'?"),
    "split": (
        [HEADER, "a.png,sad,vall,x"],
        "line 2: unknown split 'vall', did you mean 'val'? (one of train calib val test)",
    ),
    "path empty": ([HEADER, ",sad,val,x"], "line 2: the path is empty"),
    "image missing": (
        [HEADER, "a.png,sad,val,x", "", "gone.png,sad,val,x"],
        "line 4: no image at ",
    ),
    "no rows": ([HEADER], "no rows under the header"),
}


@pytest.mark.parametrize(("lines", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_file_and_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    file = written(tmp_path, lines)
    with pytest.raises(UserError) as raised:
        read_manifest(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_line_after_a_field_of_two_lines_is_still_numbered_as_in_an_editor(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, [HEADER, 'a.png,sad,val,"two', 'lines"', "b.png,sadd,val,x"])
    with pytest.raises(UserError, match="line 4: unknown label 'sadd'"):
        read_manifest(file)


def test_images_are_not_looked_for_when_only_the_labels_matter(tmp_path: Path) -> None:
    file = written(tmp_path, [HEADER, "gone.png,sad,val,x"])
    assert len(read_manifest(file, check_files=False).rows) == 1


def test_what_is_no_manifest_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest at .*absent\.csv"):
        read_manifest(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="is a folder; name the manifest's CSV file in it"):
        read_manifest(tmp_path)
    (tmp_path / "photo.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(UserError, match=r"photo\.csv: not a CSV text file"):
        read_manifest(tmp_path / "photo.csv")


def test_only_the_columns_that_are_used_are_written(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.csv", [Row("a.png", "sad", "val", "x")])
    assert (tmp_path / "m.csv").read_text() == f"{HEADER}\na.png,sad,val,x\n"
    rows = [Row("a.png", "sad", "val", "x", group="g"), Row("b.png", "sad", "val", "x")]
    write_manifest(tmp_path / "m.csv", rows)
    assert (tmp_path / "m.csv").read_text().splitlines()[0] == f"{HEADER},group"
