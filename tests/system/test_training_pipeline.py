"""The documented way from a tar to a distilled student, on a few faces and for an epoch each."""

import csv
import json
import re
import shlex
import tarfile
from pathlib import Path

import pytest

from contract.bundle import open_bundle
from contract.errors import UserError
from tests.conftest import PROJECT
from tests.trainer.tiny import fer_trainer

SMALL = [
    "--epochs", "1", "--image-size", "32", "--batch-size", "16", "--accum-steps", "2",
    "--set", "threads=1",
]  # fmt: skip


def documented() -> list[list[str]]:
    """The commands of the first block of docs/training.md, in their order."""
    text = (PROJECT / "docs/training.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [shlex.split(line)[1:] for line in block[1].splitlines()]


def few_faces(ferplus: Path, out: Path) -> Path:
    """FER+ in its own layout with the first images of each part."""
    out.mkdir()
    wanted = {"Training": 100, "PublicTest": 30}
    with (ferplus / "fer2013new.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    kept = [r for usage, n in wanted.items() for r in [r for r in rows if r[0] == usage][:n]]
    with (out / "fer2013new.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *kept])
    names = {row[1] for row in kept}
    with (
        tarfile.open(ferplus / "images.tar") as source,
        tarfile.open(out / "images.tar", "w") as made,
    ):
        for member in source:
            if Path(member.name).name in names:
                made.addfile(member, source.extractfile(member))
    return out


@pytest.mark.timeout(400)  # three real teachers, on a machine that may be busy
def test_from_tar_to_distilled_student(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = few_faces(shared / "data/ferplus", tmp_path / "ferplus")
    monkeypatch.chdir(tmp_path)
    commands = documented()
    phases = [c[c.index("--phase") + 1] for c in commands if "--phase" in c]
    assert phases == [
        "teacher_rn18", "teacher_b3", "teacher_cnxt", "student_ce", "student_kd", "student_dkd",
    ]  # fmt: skip
    for command in commands:
        given = [str(folder) if part == "FOLDER" else part for part in command]
        if "--phase" in given:
            given += SMALL
        assert fer_trainer(*given) == 0, given

    printed = capsys.readouterr().out
    assert all(f"student_{kind}-seed1337" in printed for kind in ("ce", "kd", "dkd"))
    assert "p (Holm)" in printed
    run = tmp_path / "runs/student_dkd-seed1337"
    student = open_bundle(run / "bundle")
    inputs = student.info.provenance.detail["inputs"]
    assert set(inputs) == {"manifest_sha256", "start_sha256", "softlabels_sha256"}
    assert student.info.metrics["val"]["n"] > 20
    line = json.loads((run / "history.jsonl").read_text())
    assert {"ce", "tckd", "nckd"} <= set(line)
    ensemble = json.loads((tmp_path / "ensemble/ensemble.json").read_text())
    assert len(ensemble["teachers"]) == 3
    assert sum(teacher["weight"] for teacher in ensemble["teachers"]) == pytest.approx(1, abs=1e-3)
    for name in ("curves", "confusion", "reliability"):
        assert (run / f"plots/{name}.png").stat().st_size > 5000

    # A phase of the study on top ends with a verdict.
    assert fer_trainer("--phase", "study_kd", *SMALL) == 0
    capsys.readouterr()
    assert fer_trainer("--phase", "negl_tier1", *SMALL) == 0
    printed = capsys.readouterr().out
    assert "negl_tier1 against study_kd" in printed
    assert "decision: " in printed

    # Other softlabels than the student was made for are refused by name.
    with pytest.raises(UserError, match="augment"):
        fer_trainer(
            "--phase", "student_kd", "--name", "other", "--set", "augment.flip=0.25", *SMALL
        )
