"""Two processes do what one does that accumulates over as many pieces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer.distributed import rank, sharded, summed, world


def torchrun(processes: int, *arguments: str) -> str:
    """`torchrun -m trainer …` as a user has it, on gloo; what it printed."""
    made = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}",
            "--standalone", "-m", "trainer", *arguments,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, timeout=200,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout
    return made.stdout


@pytest.mark.timeout(300)  # two processes that import torch, on a machine that may be busy
def test_two_processes_end_where_one_does(phase_file: Path, finished: Path) -> None:
    """`finished` accumulates over two pieces; here each process has one of them."""
    told = torchrun(2, "--phase", str(phase_file), "--name", "two", "--accum-steps", "1")
    run = phase_file.parent / "runs/two"
    assert told.count("float bundle") == 1, "only the main process speaks"
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    ours, theirs = (
        [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (run, finished)
    )
    for key in ("loss", "calib_nll", "calib_accuracy", "calib_macro_f1", "grad_norm_max"):
        found, expected = ([line[key] for line in lines] for lines in (ours, theirs))
        assert found == pytest.approx(expected, rel=2e-3), key
    ours, theirs = (
        load_file(folder / "checkpoints/last.safetensors") for folder in (run, finished)
    )
    for key, value in theirs.items():  # running statistics too
        if value.is_floating_point() and not key.startswith("optim."):
            torch.testing.assert_close(ours[key], value, rtol=2e-2, atol=2e-3, msg=key)


def test_alone_everything_is_as_if_nothing_were_shared() -> None:
    assert (rank(), world()) == (0, 1)
    assert summed([1.5, 2.0], "cpu") == [1.5, 2.0]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 7, 10, 30])
def test_batches_are_dealt_whole(
    count: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All processes together compute every batch once, the same ones however many they are."""
    totals = torch.zeros(count)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr("trainer.distributed.world", lambda: processes)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    for process in range(processes):
        monkeypatch.setattr("trainer.distributed.rank", lambda process=process: process)
        mine: list[tuple[int, int]] = []

        def compute(part: slice, mine: list[tuple[int, int]] = mine) -> dict[str, torch.Tensor]:
            mine.append((part.start, part.stop))
            return {"x": torch.arange(count)[part] + 1.0}

        part = sharded(count, 4, compute)["x"]
        assert part.shape == (count,)
        totals += part
        seen += mine if part.any() else []
    assert torch.equal(totals, torch.arange(count) + 1.0)
    assert sorted(seen) == [(first, min(first + 4, count)) for first in range(0, count, 4)]
