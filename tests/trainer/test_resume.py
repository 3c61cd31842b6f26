"""A run that was killed goes on as if nothing had happened, to the last bit."""

import json
import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from tests.trainer.tiny import fer_trainer

STEPS_PER_EPOCH = 448 // (16 * 2)


def step_of(checkpoint: Path) -> int:
    """Steps done by a checkpoint; 0 while there is none."""
    try:
        with safe_open(checkpoint, framework="pt") as stored:
            return int(json.loads(stored.metadata()["progress"])["step"])
    except (FileNotFoundError, SafetensorError, RuntimeError):  # replaced while it was read
        return 0


def killed_at(arguments: list[str], run: Path, step: int, delay_s: float) -> int:
    """Run the command and kill it `delay_s` after it passed a step; returns where it stood.

    The process is forked, so that it need not spend seconds on importing torch each time.
    """
    checkpoint = run / "checkpoints/last.safetensors"
    process = multiprocessing.get_context("fork").Process(target=fer_trainer, args=arguments)
    process.start()
    end = time.monotonic() + 100
    while step_of(checkpoint) < step:
        assert process.is_alive(), "it ended by itself"
        assert time.monotonic() < end, "it never came that far"
        time.sleep(0.002)
    time.sleep(delay_s)
    process.kill()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    return step_of(checkpoint)


@pytest.mark.timeout(300)  # on a machine that may be busy
def test_a_run_killed_five_times_ends_with_the_weights_of_an_undisturbed_one(
    phase_file: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    arguments = ["--phase", str(phase_file), "--name", "killed"]
    run = phase_file.parent / "runs/killed"
    chance = random.Random(time.time_ns())
    # Anywhere: within a step, a checkpoint or an epoch's end, as it comes.
    stops = sorted(chance.sample(range(1, 4 * STEPS_PER_EPOCH - 8), 5))
    step = 0
    for stop in stops:
        step = killed_at(arguments, run, max(stop, step + 1), chance.uniform(0, 0.05))
    assert 0 < step < 4 * STEPS_PER_EPOCH, stops
    assert not (run / "bundle").exists()

    whole: Path = request.getfixturevalue("finished")
    capsys.readouterr()
    assert fer_trainer(*arguments) == 0
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
    for key in ("loss", "grad_norm_max", "calib_nll", "calib_accuracy", "calib_macro_f1"):
        assert [line[key] for line in ours] == [line[key] for line in theirs]
