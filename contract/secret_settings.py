"""Secrets a program is given: in the environment, in a file, or as a systemd credential.

A secret called `FER_X_TOKEN` is the value of that variable, or what the file named by
`FER_X_TOKEN_FILE` holds, or the credential `fer-x-token` that systemd hands over in the folder
`$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from contract.errors import UserError

CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"


def credential_name(variable: str) -> str:
    """What systemd calls the secret of a variable: `FER_X_TOKEN` → `fer-x-token`."""
    return variable.lower().replace("_", "-")


def configured_secret(variable: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The secret called `variable`, without white space around it; None when it is not set.

    Raises `UserError` for an empty one, an unreadable file, or one that is set in two places.
    """
    found = [(variable, environment[variable])] if variable in environment else []
    for place, file in _files(variable, environment):
        try:
            found.append((place, file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{place}: not readable ({error})") from None
    if not found:
        return None
    if len(found) > 1:
        places = " and ".join(place for place, _ in found)
        raise UserError(f"{places} are both set; unset one")
    place, value = found[0]
    if not value.strip():
        raise UserError(f"{place}: it is empty; put the secret there, or unset it")
    return value.strip()


def _files(variable: str, environment: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Files that hold the secret, each with what to call it in a message."""
    files = []
    named = environment.get(f"{variable}_FILE")
    if named is not None:
        files.append((f"{variable}_FILE={named}", Path(named)))
    folder = environment.get(CREDENTIALS_VARIABLE)
    if folder is not None:
        credential = Path(folder) / credential_name(variable)
        if credential.exists():
            files.append((f"credential {credential.name}", credential))
    return files
