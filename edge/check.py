"""`fer-edge check`: is a profile right, what does it change, what does each of its keys mean?"""

import argparse
import json
from collections.abc import Sequence

from contract.command import Parser
from contract.errors import UserError, nearest
from edge.masking import Mask, credentials_of
from firmware_config.key_table import config_table
from firmware_config.keys import Key, keys, values_of
from firmware_config.profile import DEFAULT, Profile, load_profile, profile_names
from firmware_config.purpose import require_purpose


def _shown(value: object) -> str:
    return "–" if value is None else json.dumps(value, ensure_ascii=False)


def changes(profile: Profile) -> list[str]:
    """What a profile sets otherwise than by default, a line for each key."""
    every = keys()
    return [
        f"{name} = {_shown(value)}"
        for name, value in values_of(profile).items()
        if not every[name].required and value != every[name].schema["default"]
    ]


def explain_key(key: Key, profile: Profile) -> list[str]:
    """A key for people: what it is, what it may be, and what it is in `profile`."""
    default = "none, it must be given" if key.required else _shown(key.schema["default"])
    change = "may change (page, or reload)" if key.live else "a restart is needed"
    return [
        key.name,
        f"  {key.description}",
        f"  values:         {key.values}",
        f"  default:        {default}",
        f"  in {profile.name + ':':12} {_shown(values_of(profile)[key.name])}",
        f"  while it runs:  {change}",
    ]


def _found(wanted: str) -> list[Key]:
    """The key of this name, or all of the section. Raises `UserError`."""
    every = keys()
    found = [every[wanted]] if wanted in every else []
    found = found or [key for key in every.values() if key.name.startswith(f"{wanted}.")]
    if not found:
        ends = {name.rpartition(".")[2]: name for name in every}
        near = nearest(wanted, every) or nearest(ends.get(wanted, ""), every)
        raise UserError(
            f"--explain {wanted}: no such key or section{near}; "
            "fer-edge check --table lists all of them"
        )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fer-edge check", description=__doc__)
    add = parser.add_argument
    add(
        "profile", nargs="?", default=DEFAULT, metavar="PROFILE",
        help=f"a .toml file, or one of: {' '.join(profile_names())}",
    )  # fmt: skip
    add("--deployed", action="store_true", help="also ask for what a deployed profile must say")
    add("--explain", metavar="KEY", help="say what a key, or each key of a section, means")
    add("--table", action="store_true", help="print every key as Markdown (docs/config.md)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises `UserError` for a profile or key that is wrong."""
    given = _parser().parse_args(arguments)
    if given.table:
        print(config_table(), end="")
        return 0
    profile = load_profile(given.profile, {})
    mask = Mask(credentials_of(profile.camera.source))
    if given.explain is not None:
        blocks = ["\n".join(explain_key(key, profile)) for key in _found(given.explain)]
        print(mask("\n\n".join(blocks)))
        return 0
    if given.deployed:
        require_purpose(profile.purpose, given.profile)
    changed = changes(profile)
    print(f"{given.profile} is right; of {len(keys())} keys it sets {len(changed)} anew:")
    for line in changed:
        print(mask(f"  {line}"))
    if not profile.purpose:
        print("no purpose is given: it runs from a terminal, and is refused where it is deployed")
    return 0
