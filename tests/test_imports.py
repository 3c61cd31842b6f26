"""Imports point down, never in a circle, and the box needs its base install alone."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

MAY_IMPORT: dict[str, set[str]] = {
    "trainer": {"runtime", "contract"},
    "quantize": {"runtime", "contract"},
    "edge": {"runtime", "firmware_config", "contract"},
    "dashboard": {"contract"},
    "firmware_config": {"contract"},
    "runtime": {"contract"},
    "contract": set(),
}
ON_THE_BOX = ("edge", "dashboard", "runtime", "contract", "firmware_config")

# What a distribution of the base install brings, where that is not its own name. werkzeug is the
# half of Flask that its users import too.
MODULES = {
    "opencv-python-headless": {"cv2"},
    "pyzmq": {"zmq"},
    "pyserial": {"serial"},
    "flask": {"flask", "werkzeug"},
}
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Import:
    """One imported name: by which module, where, and whether at import time of the module."""

    by: str
    place: str
    target: str
    at_module_level: bool


def module_of(file: Path) -> str:
    """`edge/cameras/__init__.py` → `edge.cameras`."""
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[Path, ast.Module]:
    """The syntax tree of every file of the rooms."""
    files = [file for room in MAY_IMPORT for file in sorted((PROJECT / room).rglob("*.py"))]
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def _nodes(node: ast.AST, top: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below `node`, and whether it runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, top
        yield from _nodes(child, top and not inside)


@cache
def imports() -> tuple[Import, ...]:
    """Every import of the rooms; `from a import b` is one of `a.b` where that is a module."""
    modules = {module_of(file) for file in trees()}
    found = []
    for file, tree in trees().items():
        by = module_of(file)
        for node, top in _nodes(tree, True):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: write the room's name"
                base = node.module or ""
                names = [f"{base}.{alias.name}" for alias in node.names]
                targets = [name if name in modules else base for name in names]
            for target in dict.fromkeys(targets):
                place = f"{file.relative_to(PROJECT)}:{getattr(node, 'lineno', 0)}"
                found.append(Import(by, place, target, top))
    return tuple(found)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def test_the_rooms_are_where_this_test_looks() -> None:
    """A renamed room would otherwise pass unseen."""
    rooms = {room_of(module_of(file)) for file in trees()}
    assert rooms == set(MAY_IMPORT)
    assert len(imports()) > 200


def test_no_import_points_up() -> None:
    wrong = [
        f"{i.place} imports {i.target}"
        for i in imports()
        if room_of(i.target) in MAY_IMPORT
        and room_of(i.target) not in {room_of(i.by), *MAY_IMPORT[room_of(i.by)]}
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_tests() -> None:
    assert [i.place for i in imports() if room_of(i.target) == "tests"] == []


def test_no_two_files_import_each_other() -> None:
    """Neither directly nor in a longer circle; an import inside a function does not close one."""
    below: dict[str, set[str]] = {module_of(file): set() for file in trees()}
    for i in imports():
        if i.at_module_level and i.target in below and i.target != i.by:
            below[i.by].add(i.target)
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " → ".join([*above[above.index(module) :], module])
        if module not in done:
            for target in sorted(below[module]):
                visit(target, (*above, module))
            done.add(module)

    for module in below:
        visit(module, ())


def test_the_box_imports_the_base_install_alone() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    base: set[str] = set()
    for requirement in project["dependencies"]:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        base |= MODULES.get(name, {name})
    allowed = base | set(sys.stdlib_module_names) | set(MAY_IMPORT)
    wrong = [
        f"{i.place} imports {i.target}"
        for i in imports()
        if i.at_module_level and room_of(i.by) in ON_THE_BOX and room_of(i.target) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_the_box_never_imports_what_trains() -> None:
    heavy = {"torch", "torchvision", "timm", "pandas", "nncf", "sklearn", "safetensors"}
    wrong = [
        f"{i.place} imports {i.target}"
        for i in imports()
        if room_of(i.by) in ON_THE_BOX and room_of(i.target) in heavy
    ]
    assert not wrong, "\n".join(wrong)


def test_training_imports_no_inference_runtime_at_once() -> None:
    engines = {"openvino", "onnxruntime", "nncf", "runtime"}
    wrong = [
        f"{i.place} imports {i.target}"
        for i in imports()
        if room_of(i.by) == "trainer" and i.at_module_level and room_of(i.target) in engines
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_pickled() -> None:
    """Opening a model must not be running a program: no pickle, by any name."""
    wrong = [f"{i.place} imports {i.target}" for i in imports() if room_of(i.target) in UNPICKLERS]
    for file, tree in trees().items():
        for node, _ in _nodes(tree, True):
            place = f"{file.relative_to(PROJECT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                if called in ("torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle"):
                    wrong.append(f"{place} uses {called}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                off = isinstance(node.value, ast.Constant) and node.value.value is False
                wrong += [] if off else [f"{place} allows pickle"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("program", ["edge.cli, edge.live, edge.offline.evaluate", "dashboard.cli"])
def test_a_program_of_the_box_starts_without_the_heavy_ones(program: str) -> None:
    """What the syntax cannot show: what the libraries themselves import."""
    never = ["torch", "torchvision", "pandas", "timm", "nncf", "sklearn", "trainer", "quantize"]
    never += ["dashboard"] if program.startswith("edge") else ["edge", "openvino", "onnxruntime"]
    script = f"import sys\nimport {program}\nprint(*(set({never}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
