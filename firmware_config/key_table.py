"""`docs/config.md`: every key of a profile, written from the schema."""

import json

from firmware_config.keys import Key, keys, sections
from firmware_config.profile import PROFILES, profile_names

_HEAD = """# Every key of a profile

<!-- Written by `fer-edge check --table`; a test compares it with the schema. -->

A profile is a TOML file that says what a box does every time. It is named by `--profile box.toml`,
or by the name of one that ships (`firmware_config/profiles/`); flags win over it. An unknown key, a
wrong type or a value out of bounds ends the program before it starts, with one line that names it.

```sh
fer-edge check box.toml                     # is it right, and what does it change?
fer-edge check box.toml --deployed          # … and does it say what the box is for?
fer-edge check --explain smoothing.tau_s    # one key, or every key of a section
```

Keys marked *live* may change while the program runs: on the page, where they last until the next
start or reload, or by editing the file and then `systemctl reload` (SIGHUP to the program), or the
page's reload. Other keys that changed are named, and need a restart. A file that is wrong then is
said in `/readyz` and on the page, and the box goes on with what it had. A program that was started
from a terminal ends on SIGHUP, as others do.
"""


def _default(key: Key) -> str:
    if key.required:
        return "the file's name" if key.name == "name" else "*required*"
    value = key.schema["default"]
    return "–" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _row(key: Key) -> str:
    cells = (
        f"`{key.name.rpartition('.')[2]}`",
        key.description,
        key.values,
        _default(key),
        "live" if key.live else "",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _table(section: str, every: list[Key]) -> list[str]:
    rows = [_row(key) for key in every if key.section == section]
    return ["| key | what | values | default | |", "| --- | --- | --- | --- | --- |", *rows, ""]


def _profiles() -> list[str]:
    """What each profile that ships is for, as the comment it begins with says."""
    files = [PROFILES / f"{name}.toml" for name in profile_names()]
    firsts = [file.read_text(encoding="utf-8").splitlines()[0] for file in files]
    rows = [f"| `{file.stem}` | {first[2:]} |" for file, first in zip(files, firsts, strict=True)]
    return ["| profile | what for |", "| --- | --- |", *rows, ""]


def config_table() -> str:
    """The page as Markdown."""
    every = list(keys().values())
    lines = [_HEAD, *_profiles(), "## At the top", "", *_table("", every)]
    for section, about in sections().items():
        lines += [f"## `[{section}]`", "", *(about.splitlines() or [""]), ""]
        lines += _table(section, every)
    return "\n".join(lines).rstrip() + "\n"
