"""What a scripted camera shows, and which fault it has when: a TOML file, checked on reading.

source = "demo"          # or a clip, an image or a folder, relative to this file

[[fault]]
kind = "freeze"
at_s = 5.0
for_s = 3.0
"""

import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.errors import UserError, nearest
from contract.validation import explain

SCRIPTS = Path(__file__).parent / "scripts"

Kind = Literal[
    "drop", "freeze", "black", "tear", "resolution", "slow", "wrong_colour",
    "disappear", "stuck", "stuck_open",
]  # fmt: skip


class Fault(BaseModel):
    """One fault: its kind, when it begins, how long it lasts, and how often it comes again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = Field(
        description="drop: no frames. freeze: the last one again and again. black: a covered lens. "
        "tear: upper half of one frame, lower half of the next. resolution: frames of another "
        "size. slow: fewer frames. wrong_colour: red and blue swapped. disappear: the device is "
        "gone. stuck: a read does not return. stuck_open: nor does an open."
    )
    at_s: float = Field(ge=0, description="Seconds from time zero to its beginning.")
    for_s: float = Field(gt=0, le=86400, description="How long it lasts, seconds.")
    every_s: float | None = Field(
        None, gt=0, description="Seconds from one beginning to the next; without it, once only."
    )
    width: int | None = Field(None, ge=16, le=7680, description="Of resolution: pixels.")
    height: int | None = Field(None, ge=16, le=4320, description="Of resolution: pixels.")
    fps: float | None = Field(None, gt=0, le=240, description="Of slow: frames per second.")

    @model_validator(mode="after")
    def _check(self) -> "Fault":
        for name, owner in (("width", "resolution"), ("height", "resolution"), ("fps", "slow")):
            if (getattr(self, name) is None) == (self.kind == owner):
                verb = "needs" if self.kind == owner else "takes no"
                raise ValueError(f"a fault of kind '{self.kind}' {verb} '{name}'")
        if self.every_s is not None and self.every_s <= self.for_s:
            raise ValueError("'every_s' must be longer than 'for_s', or the fault never ends")
        return self

    def began_s(self, t_s: float) -> float | None:
        """When it began last, at or before `t_s`; None before the first time."""
        if t_s < self.at_s:
            return None
        if self.every_s is None:
            return self.at_s
        return self.at_s + math.floor((t_s - self.at_s) / self.every_s) * self.every_s

    def ends_s(self, t_s: float) -> float | None:
        """When the fault that is on at `t_s` ends; None while there is none."""
        began = self.began_s(t_s)
        if began is None or t_s >= began + self.for_s:
            return None
        return began + self.for_s


class Script(BaseModel):
    """A scene and the faults that come over it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(
        "demo", description="demo, or a clip, image or folder relative to this file; played over "
        "and over."
    )  # fmt: skip
    width: int | None = Field(
        None,
        ge=64,
        le=7680,
        description="Width of its frames, pixels; without it, that of the clip, or as asked.",
    )
    height: int | None = Field(
        None,
        ge=64,
        le=4320,
        description="Height of its frames, pixels; without it, that of the clip, or as asked.",
    )
    fps: float | None = Field(
        None, gt=0, le=240, description="Frames per second; without it, as asked."
    )
    fault: tuple[Fault, ...] = Field((), description="The faults, in any order; they may overlap.")

    def ends_s(self, kind: Kind, t_s: float) -> float | None:
        """When all faults of a kind that are on at `t_s` will be over; None while none is."""
        ends = [end for one in self._of(kind) if (end := one.ends_s(t_s)) is not None]
        return max(ends, default=None)

    def active(self, kind: Kind, t_s: float) -> Fault | None:
        """The first fault of a kind that is on at `t_s`."""
        return next((one for one in self._of(kind) if one.ends_s(t_s) is not None), None)

    def began_s(self, kind: Kind, t_s: float) -> float | None:
        """When a fault of a kind began last, at or before `t_s`, over by then or not."""
        begins = [began for one in self._of(kind) if (began := one.began_s(t_s)) is not None]
        return max(begins, default=None)

    def _of(self, kind: Kind) -> Sequence[Fault]:
        return [one for one in self.fault if one.kind == kind]


def script_names() -> list[str]:
    """The scripts that ship with the program."""
    return sorted(path.stem for path in SCRIPTS.glob("*.toml"))


def _line(text: str, place: tuple[int | str, ...]) -> int | None:
    """The line, from 1, where a key stands, or its `[[fault]]`; None where it is not to be seen."""
    wanted = int(place[1]) if len(place) > 1 and place[0] == "fault" else -1
    section, found = -1, None
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r"\s*\[\[\s*fault\s*\]\]", line):
            section += 1
            found = number if section == wanted else found
        elif section == wanted and re.match(rf"\s*{re.escape(str(place[-1]))}\s*=", line):
            return number
    return found


def find_script(name: str) -> Path:
    """The file of `scripted:NAME`: a TOML file, or the name of a script that ships with this.

    Raises `UserError` for a name that is neither.
    """
    shipped = SCRIPTS / f"{name}.toml"
    if name in script_names():
        return shipped
    file = Path(name).expanduser()
    if file.suffix.lower() != ".toml" or not file.is_file():
        known = script_names()
        raise UserError(
            f"camera scripted:{name}: no such script{nearest(name, known)} "
            f"(one of {' '.join(known)}, or a .toml file)"
        )
    return file


def load_script(file: Path) -> Script:
    """A script from its file. Raises `UserError` naming file, line where it can, and key."""
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file}: not readable as TOML: {error}") from None
    try:
        return Script.model_validate(content)
    except ValidationError as error:
        line = _line(text, error.errors()[0]["loc"])
        raise explain(error, Script, f"{file}, line {line}" if line else file) from None
