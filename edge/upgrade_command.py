"""`fer-edge upgrade WHEEL`: another version beside the one that runs, and back if it is no good.

The new version is made and tried out while the old one works. Then the link is switched, by one
rename, and the services are started anew; if one of them is not as good as it was before, link and
files go back and the old version is started again. Every version writes its own units and rules.
"""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from contract.command import Parser
from contract.errors import UserError
from edge.install_command import add_root_flags, add_wheels_flag, layout_of
from edge.install_services import Services, State
from edge.install_version import Source, extras_for, make_version, run_version, self_test
from firmware_config.install_layout import Layout
from firmware_config.profile import load_profile


def _profiles(layout: Layout) -> list[Path]:
    return sorted(layout.profile.parent.glob("*.toml"))


def _make(layout: Layout, source: Source) -> str:
    """The new version, fit for every profile of the box. Raises `UserError`, and leaves none."""
    profiles = _profiles(layout)
    extras = {extra for file in profiles for extra in extras_for(load_profile(str(file), {}))}
    version = make_version(layout, source, sorted(extras))
    for file in profiles:
        faults = self_test(layout, version, file)
        if faults:
            layout.remove_version(version)
            raise UserError(
                f"{version} is not fit for {file} on this machine, and nothing was changed: "
                f"{'; '.join(faults)}"
            )
    return version


def _use(layout: Layout, version: str) -> None:
    """Have a version's own units and rules in place, and the version current."""
    done = run_version(
        layout, version, "install", "--files-only", "--root", layout.root,
        "--profile", layout.profile,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"{version} does not write its files: {done.stderr.strip()[-300:]}")
    layout.switch(version)


def upgrade(layout: Layout, source: Source, services: Services | None) -> str:
    """Make the version of `source` the one that runs; returns the name of what runs now.

    `services` are those to start anew, None in a folder that is only an image. Raises `UserError`
    where the old version goes on, or runs again, and says why.
    """
    before = layout.current()
    if before is None:
        raise UserError(f"{layout.home}: nothing is installed there; use fer-edge install")
    if source.version == before:
        return before
    version = _make(layout, source)
    states = {name: services.state(name) for name in services.running()} if services else {}
    try:
        _use(layout, version)
        fault = next(_faults(services, states), "")
    except (UserError, OSError) as error:  # a full disk, for one
        fault = str(error)
    except KeyboardInterrupt:
        fault = "it was interrupted"
    if fault:
        now = _back(layout, before, services, states)
        layout.remove_version(version)
        raise UserError(f"{version} was taken back: {fault}; {now}")
    layout.remove_all_but(version, before)
    return version


def _back(
    layout: Layout, before: str, services: Services | None, states: Mapping[str, State]
) -> str:
    """Have the version of `before` run again; one line on how it is."""
    layout.switch(before)
    try:
        _use(layout, before)
        up = {name: replace(was, ready=False) for name, was in states.items()}
        # All of them, whatever becomes of the first: none may go on with what is removed next.
        faults = list(_faults(services, up))
        fault = faults[0] if faults else ""
    except (UserError, OSError) as error:
        fault = str(error)
    return f"{before} is back" + (f", but {fault}" if fault else " and runs")


def _faults(services: Services | None, states: Mapping[str, State]) -> Iterator[str]:
    """Start the services anew, one after another; why each that is worse than in `states` is so."""
    if services is None:
        return
    services.reload()
    for name, was in states.items():
        fault = services.restart(name, was_ready=was.ready)
        if fault and was.active:
            yield fault


@contextmanager
def _not_cut_short() -> Iterator[None]:
    """A lost terminal does not end an upgrade half-way; SIGTERM has it go back as Ctrl-C does."""
    before = {
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.default_int_handler),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    parser = Parser(
        prog="fer-edge upgrade",
        description="Install a version beside the one that runs, try it out, switch to it, and "
        "go back if a service does not become ready. An older wheel is a way back as well.",
    )
    parser.add_argument("wheel", type=Path, metavar="WHEEL", help="the version's fer_edge-….whl")
    add_wheels_flag(parser)
    add_root_flags(parser)
    given = parser.parse_args(arguments)
    layout = layout_of(given.root, dry_run=given.dry_run)
    source = Source(given.wheel, given.wheels)
    before = layout.current()
    if given.dry_run:
        print(f"make, test and switch to {layout.versions / source.version}, from {before}")
        return 0
    os.umask(0o022)
    services = Services() if layout.is_this_machine else None
    with layout.changing(), _not_cut_short():
        now = upgrade(layout, source, services)
    print(f"{now} is installed already" if now == before else f"{now} runs; before: {before}")
    return 0
