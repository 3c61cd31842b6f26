"""Many runs: phases × seeds in the order they need each other, each a process of its own.

A run that fails ends neither the others nor the matrix; what needs it is blocked. What is complete
is skipped and what is not goes on, as the trainer does by itself, so the matrix may be stopped at
any moment and started again. On several GPUs as many runs go at once, one on each.
"""

import json
import os
import subprocess
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UserError, nearest
from contract.files import write_json_atomic
from contract.validation import explain
from trainer.phase_files import load_phase, phase_names

STATUS_FILE = "matrix_status.json"
MATRICES = Path(__file__).parent / "matrices"
State = Literal["waiting", "running", "complete", "failed", "blocked"]


class MatrixConfig(BaseModel):
    """What a matrix file declares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field("", description="What it is for.")
    phases: tuple[str, ...] = Field(
        min_length=1, description="Phases to run; those they need are run as well."
    )
    seeds: tuple[int, ...] = Field((1337,), min_length=1, description="A run of each with each.")
    out: Path = Field(Path("runs"), description="Folder of run folders.")
    manifest: Path | None = Field(None, description="Manifest of all runs, if not the phases'.")
    softlabels: Path | None = Field(None, description="Softlabels of all, if not the phases'.")
    set: tuple[str, ...] = Field((), description="key=value overrides of every phase.")
    phase_set: dict[str, tuple[str, ...]] = Field(
        {}, description="key=value overrides of single phases."
    )


@dataclass(eq=False)
class Job:
    """One run: what it is, what it waits for, how it stands."""

    phase: str
    seed: int
    folder: Path
    arguments: list[str]
    needs: list[str]
    state: State = "waiting"
    seconds: float = 0.0
    exit_code: int | None = None
    device: str = ""
    log: str = ""
    process: int | None = None
    started: float | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return f"{self.phase}-seed{self.seed}"


def load_matrix(name: str) -> MatrixConfig:
    """A matrix by the name of one that is shipped, or by its TOML file, checked.

    Raises `UserError` for one that is not there, an unknown key or phase.
    """
    file = Path(name) if name.endswith(".toml") else MATRICES / f"{name}.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = sorted(each.stem for each in MATRICES.glob("*.toml"))
        raise UserError(
            f"{name}: no such matrix{nearest(name, known)} (a TOML file, or one of "
            f"{' '.join(known)})"
        ) from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid TOML: {error}") from None
    try:
        matrix = MatrixConfig.model_validate(content)
    except ValidationError as error:
        raise explain(error, MatrixConfig, file) from None
    for phase in (*matrix.phases, *matrix.phase_set):
        if phase not in phase_names():
            raise UserError(f"{file}: no phase '{phase}'{nearest(phase, phase_names())}")
    return matrix


def _needs(phase: str, sets: list[str]) -> list[str]:
    """Phases that must be complete before this one, with the same seed."""
    config = load_phase(phase, sets)
    start = [config.start.phase] if config.start.phase and not config.start.checkpoint else []
    return list(dict.fromkeys([*start, *config.study.requires]))


def in_order(
    phases: Sequence[str], sets: Callable[[str], list[str]] = lambda phase: []
) -> dict[str, list[str]]:
    """The phases and all that they need, each after what it needs: phase → what it needs.

    `sets` gives a phase's key=value overrides: one that starts from named weights needs no run to
    start from. Raises `UserError` for phases that need each other in a circle.
    """
    done: dict[str, list[str]] = {}

    def visit(phase: str, path: tuple[str, ...]) -> None:
        if phase in path:
            raise UserError(f"phases need each other in a circle: {' → '.join([*path, phase])}")
        if phase in done:
            return
        needs = _needs(phase, sets(phase))
        for each in needs:
            visit(each, (*path, phase))
        done[phase] = needs

    for phase in phases:
        visit(phase, ())
    return done


def is_complete(folder: Path) -> bool:
    """Whether a run has ended: the bundle is the last thing it writes."""
    return (folder / "bundle" / "bundle.json").is_file()


def missing_prerequisites(phase: str, seed: int, out: Path) -> list[str]:
    """The phases to be run before this one, in order; those that are complete are left out."""
    needed = [each for each in in_order([phase]) if each != phase]
    return [each for each in needed if not is_complete(out / f"{each}-seed{seed}")]


def jobs_of(matrix: MatrixConfig) -> list[Job]:
    """Every run of a matrix, seed by seed, each after those it needs."""

    def sets_of(phase: str) -> list[str]:
        return [*matrix.set, *matrix.phase_set.get(phase, ())]

    order = in_order(matrix.phases, sets_of)
    given: list[str] = ["--out", str(matrix.out)]
    for flag, path in (("--manifest", matrix.manifest), ("--softlabels", matrix.softlabels)):
        given += [flag, str(path)] if path is not None else []
    made = []
    for seed in matrix.seeds:
        for phase, needs in order.items():
            words = ["--phase", phase, "--seed", str(seed), *given]
            words += [word for each in sets_of(phase) for word in ("--set", each)]
            job = Job(
                phase, seed, matrix.out / f"{phase}-seed{seed}", words,
                [f"{each}-seed{seed}" for each in needs],
            )  # fmt: skip
            made.append(job)
    return made


def _before(file: Path) -> dict[str, dict[str, Any]]:
    """What an earlier matrix in the same folder wrote of its runs, by name."""
    if not file.is_file():
        return {}
    try:
        return {each["name"]: each for each in json.loads(file.read_text())["runs"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file}: not readable; remove it, the runs tell where they are") from None


def _still_runs(stored: Mapping[str, Any]) -> bool:
    """Whether the process an earlier matrix started goes on without it."""
    number, started = stored.get("process"), stored.get("started")
    if stored.get("state") != "running" or not isinstance(number, int) or started is None:
        return False
    try:
        process = psutil.Process(number)
        alive: bool = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return alive and abs(process.create_time() - float(started)) < 1.0
    except psutil.Error:
        return False


def _last_line(log: Path) -> str:
    """What a run said last: of a user's mistake, the whole of it."""
    with log.open("rb") as stream:
        stream.seek(-min(4096, log.stat().st_size), os.SEEK_END)
        lines = stream.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


class Matrix:
    """The runs of a matrix, and matrix_status.json beside their folders, always up to date.

    `command` is the trainer's; `devices` are the CUDA devices to deal out, none for a plain run.
    """

    def __init__(
        self, matrix: MatrixConfig, command: Sequence[str], devices: Sequence[str] = (),
        say: Callable[[str], object] = print,
    ) -> None:  # fmt: skip
        self.config, self.jobs = matrix, jobs_of(matrix)
        self._command, self._devices, self._say = list(command), list(devices), say
        self._by_name = {job.name: job for job in self.jobs}
        self._file = matrix.out / STATUS_FILE
        self._lock = Lock()
        self._free: SimpleQueue[str] = SimpleQueue()
        for device in self._devices or [""]:
            self._free.put(device)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped = False
        self._settle(_before(self._file))

    def _settle(self, before: Mapping[str, Mapping[str, Any]]) -> None:
        """Mark what is complete. What was run otherwise than now would run is left to the trainer,
        which names the difference."""
        for job in self.jobs:
            stored = before.get(job.name, {})
            if _still_runs(stored):
                raise UserError(
                    f"{job.folder} is being trained by process {stored['process']} of an earlier "
                    "matrix; wait for it, or stop it"
                )
            if is_complete(job.folder) and stored.get("arguments", job.arguments) == job.arguments:
                job.state = "complete"
                job.seconds = float(stored.get("seconds", 0.0))

    def _write(self) -> None:
        runs = [
            {"name": job.name, **asdict(job), "folder": str(job.folder)} for job in self.jobs
        ]  # fmt: skip
        write_json_atomic(self._file, {"description": self.config.description, "runs": runs})

    def _change(self, job: Job, state: State) -> None:
        with self._lock:
            job.state = state
            self._write()

    def _train(self, job: Job) -> int:
        """One run on a free device, in a thread of the pool; returns its exit code."""
        device = self._free.get()
        try:
            environment = dict(os.environ)
            if device:
                environment["CUDA_VISIBLE_DEVICES"] = device
            log = self.config.out / "logs" / f"{job.name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            with log.open("ab") as stream:
                with self._lock:
                    if self._stopped:
                        return 130
                    process = subprocess.Popen(
                        [*self._command, *job.arguments], stdin=subprocess.DEVNULL,
                        stdout=stream, stderr=subprocess.STDOUT, env=environment,
                    )  # fmt: skip
                    self._processes[job.name] = process
                    job.log, job.device, job.process = str(log), device, process.pid
                    job.started = psutil.Process(process.pid).create_time()
                    job.state = "running"
                    self._write()
                self._say(f"{job.name}: running{f' on GPU {device}' if device else ''}, {log}")
                code = process.wait()
            job.seconds += round(time.monotonic() - began, 1)
            return code
        finally:
            self._free.put(device)

    def _finish(self, job: Job, code: int) -> None:
        job.exit_code, job.process = code, None
        if code == 0 and is_complete(job.folder):
            self._change(job, "complete")
            self._say(f"{job.name}: complete after {job.seconds:.0f} s")
            return
        self._change(job, "failed")
        why = f"exit code {code}" if code else "it ended without a bundle"
        self._say(f"{job.name}: failed, {why}: {_last_line(Path(job.log))} ({job.log})")

    def _block(self) -> None:
        for job in self.jobs:  # in order, so that what is blocked blocks on
            bad = [n for n in job.needs if self._by_name[n].state in ("failed", "blocked")]
            if job.state == "waiting" and bad:
                self._change(job, "blocked")
                self._say(f"{job.name}: blocked by {', '.join(bad)}")

    def _ready(self) -> list[Job]:
        return [
            job
            for job in self.jobs
            if job.state == "waiting"
            and all(self._by_name[name].state == "complete" for name in job.needs)
        ]

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            processes = list(self._processes.values())
        for process in processes:
            if process.poll() is None:
                process.terminate()

    def run(self) -> list[Job]:
        """Run all that is left; returns every job, as it stands at the end.

        An interrupt ends the runs in progress too; they go on when the matrix is started again.
        """
        self._write()
        width = max(1, len(self._devices))
        going: dict[Future[int], Job] = {}
        with ThreadPoolExecutor(width) as pool:
            try:
                while True:
                    busy = list(going.values())
                    for job in self._ready():
                        if len(going) < width and job not in busy:
                            going[pool.submit(self._train, job)] = job
                    if not going:
                        return self.jobs
                    done, _ = wait(going, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._finish(going.pop(future), future.result())
                    self._block()
            except BaseException:  # Ctrl-C or a full disk: no run may go on unseen; raised again
                self._stop()
                raise
