"""What a phase needs before it can begin, as the commands that make it."""

import shlex
from pathlib import Path

from trainer.config import TrainConfig
from trainer.matrix import is_complete, missing_prerequisites
from trainer.phase_files import phase_names
from trainer.softlabels_store import HASHES_FILE


def missing_commands(config: TrainConfig, common: list[str]) -> list[list[str]]:
    """Arguments of `fer-trainer`, one list a command, in the order in which they must run.

    `common` are the flags that belong to every phase among them, such as --seed and --out. Empty
    where all is there: the runs the phase starts from and is compared with, and its softlabels,
    which need teachers and their ensemble.
    """

    def phase(name: str) -> list[str]:
        return ["--phase", name, *common]

    def folder(name: str) -> Path:
        return config.out / f"{name}-seed{config.seed}"

    found: list[list[str]] = []
    soft, manifest = config.distill.softlabels, ["--manifest", str(config.manifest)]
    if config.distill.method != "none" and not (soft / HASHES_FILE).is_file():
        teachers, ensemble = config.distill.teachers, config.out / "ensemble"
        found += [phase(name) for name in teachers if not is_complete(folder(name))]
        if not (ensemble / "ensemble.json").is_file():
            runs = [str(folder(name)) for name in teachers]
            found.append(["ensemble", *runs, *manifest, "--out", str(ensemble)])
        found.append(["softlabels", "--ensemble", str(ensemble), *manifest, "--out", str(soft)])
    names: list[str] = []
    start = [] if config.start.checkpoint else [config.start.phase]
    for need in [*start, *config.study.requires]:
        if not need or is_complete(folder(need)):
            continue  # whatever it was made from is not needed any more
        if need in phase_names():  # a phase of the user's own is taken by its name alone
            names += missing_prerequisites(need, config.seed, config.out)
        names.append(need)
    return [*found, *(phase(name) for name in dict.fromkeys(names))]


def as_shell(command: list[str]) -> str:
    """A command as one would type it."""
    return shlex.join(["fer-trainer", *command])
