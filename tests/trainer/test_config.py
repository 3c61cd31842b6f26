"""Phases: TOML files that extend each other, checked before anything runs."""

from pathlib import Path

import pytest

from contract.errors import UserError
from trainer.phase_files import PHASES, load_phase, phase_names

MINIMAL = "[input]\nsize = 32\n"


def phase(folder: Path, text: str, name: str = "p") -> str:
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return str(folder / f"{name}.toml")


@pytest.mark.parametrize("name", phase_names())
def test_every_phase_that_ships_loads(name: str) -> None:
    config = load_phase(name, [])
    assert config.phase == name
    assert config.description
    # A student must know how a detector's box maps to its input, or the box cannot use it.
    assert {"yunet", "haar"} <= set(config.input.crop)


def test_student_ce_is_what_its_files_say() -> None:
    assert "student_ce" in phase_names()
    assert not any(name.startswith("_") for name in phase_names())
    config = load_phase("student_ce", [])
    assert config.model.backbone == "mobilenetv3_large_100"
    assert config.model.pretrained is False
    assert config.target.kind == "votes"
    assert config.input.size == 48  # from _base
    assert (PHASES / "_base.toml").is_file()


def test_a_phase_extends_one_beside_it_or_one_that_ships(tmp_path: Path) -> None:
    phase(tmp_path, "[input]\nsize = 64\n[optim]\nepochs = 3\nlr = 0.1\n", "parent")
    child = phase(tmp_path, 'extends = "parent"\n[optim]\nlr = 0.2\n', "child")
    config = load_phase(child, [])
    assert (config.phase, config.input.size) == ("child", 64)
    assert (config.optim.epochs, config.optim.lr) == (3, 0.2)  # sections merge key by key

    ours = load_phase(phase(tmp_path, 'extends = "student_ce"\n[optim]\nlr = 0.2\n', "ours"), [])
    shipped = load_phase("student_ce", [])
    assert ours.optim == shipped.optim.model_copy(update={"lr": 0.2})
    assert ours.model == shipped.model


def test_a_name_beside_the_phase_hides_the_one_that_ships(tmp_path: Path) -> None:
    phase(tmp_path, MINIMAL, "_base")
    config = load_phase(phase(tmp_path, 'extends = "_base"\n'), [])
    assert config.input.size == 32


@pytest.mark.parametrize(
    "texts",
    [
        {"p": 'extends = "p"\n'},
        {"p": 'extends = "q"\n', "q": 'extends = "r"\n', "r": 'extends = "q"\n'},
    ],
)
def test_a_circle_of_extends_is_refused(tmp_path: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        phase(tmp_path, text, name)
    with pytest.raises(UserError, match=r"\.toml extends itself; remove the circle"):
        load_phase(str(tmp_path / "p.toml"), [])


def test_a_parent_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = phase(tmp_path, 'extends = "nowhere"\n')
    with pytest.raises(UserError, match=r"p\.toml: no phase file at .*nowhere\.toml"):
        load_phase(file, [])


def test_set_overrides_the_file_in_every_type(tmp_path: Path) -> None:
    file = phase(tmp_path, MINIMAL + "[optim]\nepochs = 3\n")
    config = load_phase(
        file,
        [
            "optim.epochs=5", "optim.epochs=6", "optim.lr=1e-2", "compile=true",
            "device=cpu", 'model.backbone="test_resnet"', "target.kind=label",
            "optim.size_schedule=[{until=0.5, size=24}]", "augment.flip=0",
        ],
    )  # fmt: skip
    assert (config.optim.epochs, config.optim.lr) == (6, 0.01)
    assert (config.compile, config.device) == (True, "cpu")
    assert (config.model.backbone, config.target.kind) == ("test_resnet", "label")
    assert config.optim.size_schedule[0].size == 24
    assert config.augment.flip == 0


FAULTS = {
    "unknown key": ("[optim]\nepoch = 3\n", [], "unknown key 'optim.epoch', did you mean 'epochs'"),
    "unknown top key": ("sede = 3\n", [], "unknown key 'sede', did you mean 'seed'?"),
    "unknown key by --set": ("", ["model.backbon=x"], "'model.backbon', did you mean 'backbone'"),
    "wrong value": ("[optim]\nlr = -1\n", [], "optim.lr: input should be greater than 0, got -1"),
    "wrong type": ("[optim]\nepochs = 'many'\n", [], "optim.epochs: "),
    "wrong word": ("[target]\nkind = 'vote'\n", [], "target.kind: input should be 'votes' or"),
    "not TOML": ("[optim\n", [], "p.toml: not valid TOML"),
    "no equals sign": ("", ["optim.epochs"], "--set optim.epochs: write it as key=value"),
    "no key": ("", ["=3"], "--set =3: write it as key=value"),
    "not a section": ("", ["seed=3", "seed.x=1"], "--set seed.x=1: 'seed' is not a section"),
    "stem stride": ("[model]\nstem_stride = 3\n", [], "model.stem_stride: "),
    "no input": ("", ["input=1"], "input: "),
}


@pytest.mark.parametrize(("text", "overrides", "message"), FAULTS.values(), ids=FAULTS)
def test_a_mistake_is_one_line_with_the_key(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        load_phase(phase(tmp_path, text + MINIMAL), overrides)
    assert message in str(raised.value)


def test_a_phase_without_an_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="phase p: input: field required"):
        load_phase(phase(tmp_path, "seed = 1\n"), [])


def test_an_unknown_phase_suggests_one() -> None:
    with pytest.raises(UserError, match=r"no such phase, did you mean 'student_ce'\?"):
        load_phase("student_c", [])
    with pytest.raises(UserError, match="no such phase"):
        load_phase("absent.toml", [])
