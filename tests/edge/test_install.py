"""`fer-edge install` and `uninstall` into a folder: what comes to be there, and what goes again."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from contract.errors import UserError
from edge import install_command, install_version
from edge.cli import main
from edge.detector_files import FetchResult
from edge.install_version import Source, make_version, run_version, source_from
from firmware_config.install_layout import COMPLETE, Layout
from tests.edge.stub_version import StubMaker, findings, wheel_file


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> StubMaker:
    fetched = FetchResult(None, "YuNet was not downloaded")
    monkeypatch.setattr(install_command, "fetch_yunet", lambda: fetched)
    return StubMaker(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    file = tmp_path / "reception.toml"
    file.write_text('purpose = ["research"]\n[dashboard]\nport = 8090\n')
    return file


def install(root: Path, profile: Path | str, wheel: Path, *more: object) -> int:
    return main(
        ["install", "--profile", str(profile), "--root", str(root), "--wheel", str(wheel),
         *map(str, more)]
    )  # fmt: skip


def test_an_installation_is_whole_and_leaves_nothing_when_it_goes(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path
) -> None:
    assert install(root, profile, wheel_file(tmp_path)) == 0
    layout = Layout(root)
    current = layout.current()
    assert current is not None and current.startswith("0.2.0-") and layout.is_whole(current)
    assert layout.profile.read_text() == profile.read_text()
    script = (layout.link / "bin/fer-edge").read_text()
    assert script == f"#!/opt/fer-edge/versions/{current}/bin/python\n"  # the box's place, not ours
    assert main(["uninstall", "--root", str(root)]) == 0
    assert list(root.iterdir()) == []


def test_a_dry_run_says_all_and_writes_nothing(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = wheel_file(tmp_path)
    install(root, profile, wheel, "--dry-run")
    said = capsys.readouterr().out
    assert list(root.iterdir()) == [] and not maker.pip
    install(root, profile, wheel)
    for path in root.rglob("*"):
        if (path.is_file() or path.is_symlink()) and "opt" not in path.relative_to(root).parts:
            assert str(path) in said
    capsys.readouterr()
    main(["uninstall", "--root", str(root), "--dry-run"])
    would = capsys.readouterr().out.replace("remove ", "removed ")
    main(["uninstall", "--root", str(root)])
    assert capsys.readouterr().out == would and "fer-edge.service" in would


def test_a_profile_that_ships_gets_its_purpose_from_the_flag(
    maker: StubMaker, root: Path, tmp_path: Path
) -> None:
    wheel = wheel_file(tmp_path)
    with pytest.raises(UserError, match="purpose"):
        install(root, "laptop", wheel)
    with pytest.raises(UserError, match=r"Art\. 5"):
        install(root, "laptop", wheel, "--purpose", "workplace")
    assert list(root.iterdir()) == []
    install(root, "laptop", wheel, "--purpose", "workplace", "safety")
    assert Layout(root).profile.read_text().startswith('purpose = ["workplace", "safety"]\n')


def test_a_profile_that_was_edited_on_the_box_is_not_lost(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path
) -> None:
    wheel = wheel_file(tmp_path)
    install(root, profile, wheel)
    there = Layout(root).profile
    there.write_text(there.read_text() + "preview_fps = 5\n")
    with pytest.raises(UserError, match=r"box.toml is there and says something else"):
        install(root, profile, wheel)
    install(root, there, wheel)
    assert "preview_fps" in there.read_text()


def test_a_version_that_is_not_fit_never_becomes_current(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path
) -> None:
    maker.says = findings(golden_check="fail", camera="fail")
    with pytest.raises(UserError, match=r"not fit .*: golden check: golden_check told$"):
        install(root, profile, wheel_file(tmp_path))
    layout = Layout(root)
    assert layout.current() is None and list(layout.versions.iterdir()) == []
    assert not layout.profile.exists() and not layout.units.exists(), "nor is it started at boot"


def test_the_way_back_outlives_a_second_installation(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path
) -> None:
    old, new = wheel_file(tmp_path, version="0.1.0"), wheel_file(tmp_path)
    for wheel in (old, new, new):
        install(root, profile, wheel)
    there = {each.name for each in Layout(root).versions.iterdir()}
    assert there == {Source(old).version, Source(new).version}


def test_a_service_that_was_disabled_stays_so(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path
) -> None:
    install(root, profile, wheel_file(tmp_path))
    layout = Layout(root)
    link = layout.units / "multi-user.target.wants/fer-edge.service"
    link.unlink()
    again = ["install", "--files-only", "--root", str(root), "--profile", str(layout.profile)]
    assert main(again) == 0
    assert not link.is_symlink()
    link.symlink_to("/etc/systemd/system/fer-edge.service")  # as `systemctl enable` does
    assert main(again) == 0
    assert link.is_symlink()
    main(["uninstall", "--root", str(root)])
    assert list(root.iterdir()) == []


def test_a_camera_that_is_absent_does_not_keep_a_version_away(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path
) -> None:
    maker.says = findings(camera="fail")
    install(root, profile, wheel_file(tmp_path))
    assert Layout(root).current() is not None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("absent-0.1-py3-none-any.whl", "no such wheel"),
        ("other-0.1-py3-none-any.whl", "not of fer_edge"),
        ("fer_edge.zip", "no such wheel"),
    ],
)
def test_what_is_no_wheel_of_ours_is_refused(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path, name: str, told: str
) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=told):
        install(root, profile, tmp_path / name)
    assert list(root.iterdir()) == []


def test_an_interrupted_version_is_made_anew(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, layout = wheel_file(tmp_path), Layout(root)
    half = layout.versions / Source(wheel).version
    half.mkdir(parents=True)
    (half / "half").touch()
    install(root, profile, wheel)
    assert not (half / "half").exists() and (half / COMPLETE).is_file()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(install_version, "_pip", interrupted)
    other = wheel_file(tmp_path / "other", "other")
    with pytest.raises(KeyboardInterrupt):
        make_version(layout, Source(other), [])
    assert [each.name for each in layout.versions.iterdir()] == [half.name]


def test_a_folder_of_wheels_keeps_the_index_out(
    maker: StubMaker, root: Path, profile: Path, tmp_path: Path
) -> None:
    install(root, profile, wheel_file(tmp_path), "--wheels", tmp_path)
    (arguments,) = maker.pip
    assert arguments[1:5] == ("install", "--no-index", "--find-links", str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        install(root, profile, wheel_file(tmp_path), "--wheels", tmp_path / "absent")


def test_this_machine_needs_root(monkeypatch: pytest.MonkeyPatch, profile: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UserError, match="sudo"):
        main(["install", "--profile", str(profile)])
    for also_this in ([], ["--root", "//"], ["--root", "/usr/.."]):
        with pytest.raises(UserError, match="sudo"):
            main(["uninstall", *also_this])


def test_what_is_not_there_cannot_be_uninstalled(root: Path) -> None:
    with pytest.raises(UserError, match="nothing is installed"):
        main(["uninstall", "--root", str(root)])


def test_a_program_outside_a_tree_asks_for_its_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(install_version, "SOURCE_TREE", tmp_path)
    with pytest.raises(UserError, match="--wheel FILE"), source_from(None, None):
        pass


def _small_wheel(folder: Path) -> Path:
    """A real wheel of another `fer-edge`, that needs nothing and says who it is."""
    file = folder / "fer_edge-9.9.9-py3-none-any.whl"
    about = "fer_edge-9.9.9.dist-info"
    content = {
        "edge/__init__.py": "",
        "edge/__main__.py": "from edge.cli import run\nrun()\n",
        "edge/cli.py": "import sys\n\n\ndef run():\n    print('small', *sys.argv[1:])\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: fer-edge\nVersion: 9.9.9\n"
        "Provides-Extra: fleet\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{about}/entry_points.txt": "[console_scripts]\nfer-edge = edge.cli:run\n",
    }
    record = "".join(f"{name},,\n" for name in (*content, f"{about}/RECORD"))
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in {**content, f"{about}/RECORD": record}.items():
            archive.writestr(name, text)
    return file


def _environment_with_this_pip(folder: Path) -> None:
    """As `venv` makes it, but for pip, of which putting in a copy takes most of the time."""
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    pip = importlib.util.find_spec("pip")
    assert pip is not None and pip.origin is not None
    (site / "pip").symlink_to(Path(pip.origin).parent)


def test_a_version_is_an_environment_of_its_own(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real pip, and without any index."""
    monkeypatch.setattr(install_version, "_environment", _environment_with_this_pip)
    layout = Layout(root)
    source = Source(_small_wheel(tmp_path), wheels=tmp_path)
    version = make_version(layout, source, ["fleet"])
    layout.switch(version)
    other = tmp_path / "elsewhere/edge/__main__.py"
    other.parent.mkdir(parents=True)
    other.write_text("print('another')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    assert run_version(layout, version, "doctor").stdout == "small doctor\n"
    command = layout.link / "bin/fer-edge"
    text = command.read_text()
    assert f"/opt/fer-edge/versions/{version}/bin/python" in text and str(root) not in text
    python = str(layout.link / "bin/python")
    done = subprocess.run([python, str(command), "x"], capture_output=True, text=True)
    assert done.stdout == "small x\n"
    assert Path(sys.prefix) != layout.versions / version
    broken = wheel_file(tmp_path / "broken", "no archive", "9.9.8")
    with pytest.raises(UserError, match=r"installing fer_edge-9\.9\.8.* failed: ERROR: "):
        make_version(layout, Source(broken, wheels=tmp_path), [])
    assert [each.name for each in layout.versions.iterdir()] == [version]
