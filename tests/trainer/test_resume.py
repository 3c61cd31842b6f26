"""A run that was killed goes on as if nothing had happened, to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from trainer.cli import main

STEPS_PER_EPOCH = 448 // (16 * 2)


def step_of(checkpoint: Path) -> int:
    """Steps done by a checkpoint; 0 while there is none."""
    try:
        with safe_open(checkpoint, framework="pt") as stored:
            return int(json.loads(stored.metadata()["progress"])["step"])
    except (FileNotFoundError, SafetensorError):
        return 0


def kill_in_the_middle_of_an_epoch(process: subprocess.Popen[bytes], run: Path) -> int:
    """Stop the process, look where it is, and kill it if that is well inside; returns the step."""
    checkpoint = run / "checkpoints/last.safetensors"
    end = time.monotonic() + 100
    while time.monotonic() < end and process.poll() is None:
        if step_of(checkpoint) < STEPS_PER_EPOCH + 2:  # one whole epoch, and a little
            time.sleep(0.01)
            continue
        process.send_signal(signal.SIGSTOP)
        step = step_of(checkpoint)
        if step % STEPS_PER_EPOCH:
            process.kill()
            process.wait(30)
            return step
        process.send_signal(signal.SIGCONT)
    process.kill()
    pytest.fail(f"no moment to kill it: exit code {process.wait(30)}")


@pytest.mark.timeout(300)  # a process that imports torch, on a machine that may be busy
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    phase_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    arguments = ["--phase", str(phase_file), "--name", "killed"]
    run = phase_file.parent / "runs/killed"
    with subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        step = kill_in_the_middle_of_an_epoch(process, run)
    assert process.returncode == -signal.SIGKILL
    assert STEPS_PER_EPOCH < step < 4 * STEPS_PER_EPOCH
    assert not (run / "bundle").exists()

    whole: Path = request.getfixturevalue("finished")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["fer-trainer", *arguments])
    assert main() == 0
    assert f"resuming {run} at step {step} of {4 * STEPS_PER_EPOCH}" in capsys.readouterr().out

    for name in ("last", "best"):
        expected = load_file(whole / f"checkpoints/{name}.safetensors")
        found = load_file(run / f"checkpoints/{name}.safetensors")
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), f"{name}: {key}"
    ours, theirs = (json.loads((r / "bundle/bundle.json").read_text()) for r in (run, whole))
    for key in ("golden", "temperature", "metrics"):
        assert ours[key] == theirs[key]
    ours, theirs = (
        [json.loads(line) for line in (r / "history.jsonl").read_text().splitlines()]
        for r in (run, whole)
    )
    assert [line["epoch"] for line in ours] == [0, 1, 2, 3]
    for key in ("calib_nll", "calib_accuracy", "calib_macro_f1"):
        assert [line[key] for line in ours] == [line[key] for line in theirs]
