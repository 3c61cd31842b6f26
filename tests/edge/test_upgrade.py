"""`fer-edge upgrade`: the new version runs, or the old one runs again."""

import errno
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from contract.errors import UserError
from edge import install_services, upgrade_command
from edge.cli import main
from edge.install_services import READY, READY_WITHIN_S, Services
from edge.install_version import Source
from edge.upgrade_command import upgrade
from firmware_config.install_files import put, wanted_files
from firmware_config.install_layout import Layout
from tests.edge.stub_version import StubMaker, findings, wheel_file

PROFILE = 'purpose = ["research"]\n'


@dataclass
class Service:
    """What a service does when it is started on a version: `good` ones become ready."""

    name: str
    state: str = "active"
    status: str = READY
    restarts: int = 0
    started: list[str] = field(default_factory=list)


class FakeSystemd:
    """Answers `systemctl` as the manual says; `behave` decides what a start comes to."""

    def __init__(self, layout: Layout, *services: Service) -> None:
        self.layout, self.services = layout, {each.name: each for each in services}
        self.now_s = 0.0
        self.good: Callable[[str], bool] = lambda version: True
        self.bad_as = Service("", "active", "not ready: model: it does not answer")
        self.refuses: Callable[[str], bool] = lambda version: False
        self.asked: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def run(self, command: Sequence[str]) -> "CompletedProcess[str]":
        self.asked.append(" ".join(command))
        out, code, error = "", 0, ""
        if command[1] == "list-units":
            out = "".join(f"{name} loaded {s.state}\n" for name, s in self.services.items())
        elif command[1] == "show":
            s = self.services[command[2]]
            out = f"NRestarts={s.restarts}\nActiveState={s.state}\nStatusText={s.status}\n"
        elif command[1] == "restart":
            s, version = self.services[command[2]], self.layout.current() or ""
            s.started.append(version)
            good = self.good(version)
            how = Service("") if good else self.bad_as
            s.state, s.status, s.restarts = how.state, how.status, how.restarts
            if self.refuses(version):
                code, error = 1, "Job for it failed because a timeout was exceeded.\nSee status.\n"
        return CompletedProcess(list(command), code, out, error)

    def manager(self) -> Services:
        return Services(self.run, lambda: self.now_s, self.sleep)


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> StubMaker:
    return StubMaker(monkeypatch)


@pytest.fixture
def layout(tmp_path: Path, maker: StubMaker) -> Layout:
    """An installed box with version 0.1.0 current and 0.0.9 before it."""
    layout = Layout(tmp_path / "root")
    layout.home.mkdir(parents=True)
    put(layout, wanted_files(layout, PROFILE, accelerator=False))
    for number in ("0.0.9", "0.1.0"):
        upgrade_from = Source(wheel_file(tmp_path / number, version=number))
        version = upgrade_command.make_version(layout, upgrade_from, [])
        layout.switch(version)
    return layout


@pytest.fixture
def new(tmp_path: Path) -> Source:
    return Source(wheel_file(tmp_path, "new"))


def versions(layout: Layout) -> list[str]:
    return sorted(each.name for each in layout.versions.iterdir())


def units(layout: Layout) -> str:
    """Which version wrote the units."""
    return (layout.root / "units").read_text().strip()


@pytest.fixture
def systemd(layout: Layout) -> FakeSystemd:
    return FakeSystemd(layout, Service("fer-edge.service"), Service("fer-edge@hall.service"))


def test_a_good_version_runs_and_the_one_before_is_kept(
    layout: Layout, new: Source, systemd: FakeSystemd
) -> None:
    before = layout.current()
    assert upgrade(layout, new, systemd.manager()) == new.version == layout.current()
    assert versions(layout) == sorted([str(before), new.version])
    assert units(layout) == new.version
    assert [each.started for each in systemd.services.values()] == [[new.version]] * 2
    assert systemd.asked.index("systemctl daemon-reload") < systemd.asked.index(
        "systemctl restart fer-edge.service"
    )


def broken(systemd: FakeSystemd, before: str, how: str) -> None:
    """Every version but the one before fails as `how` says."""
    systemd.good = lambda version: version == before
    if how == "does not start":
        systemd.refuses = lambda version: version != before
    elif how == "ends again":
        systemd.bad_as = Service("", "activating")
    elif how == "was started again":
        systemd.bad_as = Service("", restarts=1)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("is never ready", "not ready after 60 s: not ready: model: it does not answer"),
        ("does not start", "does not start: Job for it failed because a timeout was exceeded."),
        ("ends again", "ended after its start; its log: journalctl -u fer-edge.service"),
        ("was started again", "ended after its start"),
    ],
)
def test_a_version_that_is_no_good_goes_and_the_old_one_runs_again(
    layout: Layout, new: Source, systemd: FakeSystemd, how: str, told: str
) -> None:
    before = str(layout.current())
    broken(systemd, before, how)
    with pytest.raises(UserError) as error:
        upgrade(layout, new, systemd.manager())
    assert f"{new.version} was taken back: fer-edge.service" in str(error.value)
    assert told in str(error.value) and str(error.value).endswith(f"{before} is back and runs")
    assert layout.current() == before == units(layout)
    assert new.version not in versions(layout)
    assert all(each.started[-1:] == [before] for each in systemd.services.values())
    assert all(each.status == READY for each in systemd.services.values())
    assert systemd.now_s <= READY_WITHIN_S + 60


def test_a_box_that_waits_for_its_camera_may_be_upgraded(
    layout: Layout, new: Source, systemd: FakeSystemd
) -> None:
    waits = "not ready: camera: /dev/video0 is absent"
    for each in systemd.services.values():
        each.status = waits
    systemd.good = lambda version: False
    systemd.bad_as = Service("", "active", waits)
    assert upgrade(layout, new, systemd.manager()) == new.version
    assert systemd.now_s >= 2 * install_services.STEADY_S


def test_an_interrupted_upgrade_goes_back(
    layout: Layout, new: Source, systemd: FakeSystemd
) -> None:
    before = str(layout.current())
    systemd.good = lambda version: version == before

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    services = Services(systemd.run, lambda: systemd.now_s, interrupted)
    with pytest.raises(UserError, match=f"it was interrupted; {before} is back"):
        upgrade(layout, new, services)
    assert layout.current() == before


def test_a_service_that_failed_before_keeps_no_version_away(
    layout: Layout, new: Source, systemd: FakeSystemd
) -> None:
    hall = systemd.services["fer-edge@hall.service"]
    hall.state, hall.status = "failed", ""
    run = systemd.run

    def hall_fails(command: Sequence[str]) -> "CompletedProcess[str]":
        systemd.refuses = lambda version: command[2] == hall.name
        systemd.good = lambda version: command[2] != hall.name
        return run(command)

    services = Services(hall_fails, lambda: systemd.now_s, systemd.sleep)
    assert upgrade(layout, new, services) == new.version
    assert hall.started == [new.version]


def test_no_service_is_left_on_the_version_that_is_removed(
    layout: Layout, new: Source, systemd: FakeSystemd
) -> None:
    """Also where one before it does not come back."""
    first, second = systemd.services.values()
    run = systemd.run

    def behave(command: Sequence[str]) -> "CompletedProcess[str]":
        back = layout.current() != new.version
        systemd.refuses = lambda version: command[2] == (first.name if back else second.name)
        return run(command)

    services = Services(behave, lambda: systemd.now_s, systemd.sleep)
    with pytest.raises(UserError, match=f"is back, but {first.name} does not start"):
        upgrade(layout, new, services)
    assert second.started[-1] == layout.current()


def test_a_full_disk_on_the_way_goes_back(
    layout: Layout, new: Source, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, switch = str(layout.current()), Layout.switch

    def full(self: Layout, version: str) -> None:
        if version == new.version:
            raise OSError(errno.ENOSPC, "No space left on device")
        switch(self, version)

    monkeypatch.setattr(Layout, "switch", full)
    with pytest.raises(UserError, match=f"No space left on device; {before} is back and runs"):
        upgrade(layout, new, systemd.manager())
    assert layout.current() == before == units(layout)
    assert new.version not in versions(layout)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_leaves_the_new_version_or_the_old_one(
    layout: Layout, new: Source, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that goes away is none of its business; to be told to end is."""
    before, handler = str(layout.current()), signal.getsignal(number)
    told = iter([number])

    def faults(services: object, states: object) -> Iterator[str]:
        for one in told:
            signal.raise_signal(one)
        return iter(())

    monkeypatch.setattr(upgrade_command, "_faults", faults)
    command = ["upgrade", str(new.wheel), "--root", str(layout.root)]
    if number == signal.SIGHUP:
        assert main(command) == 0 and layout.current() == new.version
    else:
        with pytest.raises(UserError, match=f"it was interrupted; {before} is back"):
            main(command)
        assert layout.current() == before
    assert signal.getsignal(number) == handler


def test_an_old_version_that_does_not_run_either_is_told(
    layout: Layout, new: Source, systemd: FakeSystemd
) -> None:
    before = str(layout.current())
    systemd.refuses = lambda version: True
    with pytest.raises(UserError, match=f"{before} is back, but fer-edge.service does not start"):
        upgrade(layout, new, systemd.manager())
    assert layout.current() == before


def test_a_version_that_fails_its_test_changes_nothing(
    layout: Layout, new: Source, systemd: FakeSystemd, maker: StubMaker
) -> None:
    before, there = layout.current(), versions(layout)
    maker.says = findings(golden_check="fail")
    with pytest.raises(UserError, match="nothing was changed: golden check"):
        upgrade(layout, new, systemd.manager())
    assert layout.current() == before and versions(layout) == there
    assert not any("restart" in line for line in systemd.asked)


@pytest.mark.parametrize("says", ["", "[]", '{"findings": []}', "no json"])
def test_a_version_that_does_not_answer_is_not_fit(
    layout: Layout, new: Source, systemd: FakeSystemd, maker: StubMaker, says: str
) -> None:
    maker.says = says
    with pytest.raises(UserError, match="nothing was changed"):
        upgrade(layout, new, systemd.manager())


def test_every_profile_of_the_box_is_tried(
    layout: Layout, new: Source, systemd: FakeSystemd
) -> None:
    (layout.profile.parent / "hall.toml").write_text('purpose = ["nothing known"]\n')
    with pytest.raises(UserError, match=r"hall\.toml"):
        upgrade(layout, new, systemd.manager())


def test_the_same_wheel_again_and_an_image(layout: Layout, new: Source) -> None:
    assert main(["upgrade", str(new.wheel), "--root", str(layout.root)]) == 0
    assert layout.current() == new.version
    there = versions(layout)
    assert upgrade(layout, new, None) == new.version and versions(layout) == there


def test_a_box_without_an_installation_is_told(tmp_path: Path, new: Source) -> None:
    with pytest.raises(UserError, match="use fer-edge install"):
        upgrade(Layout(tmp_path / "empty"), new, None)


def test_what_ends_takes_every_service_with_it(systemd: FakeSystemd) -> None:
    systemd.manager().end()
    for name in ("fer-edge.service", "fer-edge@hall.service"):
        assert f"systemctl disable --now {name}" in systemd.asked


def test_a_machine_without_systemd_is_told(systemd: FakeSystemd, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--root DIR"):
        systemd.manager().require(tmp_path / "absent")
    systemd.manager().require(tmp_path)
