"""`fer-dashboard hash-password`: the hash of a password, which is all that a box keeps of it."""

import getpass
import sys

from werkzeug.security import generate_password_hash

from contract.errors import UserError

LEAST_CHARACTERS = 12


def hash_password() -> int:
    """Ask for a password, twice on a terminal, else read a line; print its hash.

    Raises `UserError` for one that is short, or that was typed differently the second time.
    """
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise UserError("the two passwords differ; try again")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < LEAST_CHARACTERS:
        raise UserError(
            f"a password needs at least {LEAST_CHARACTERS} characters; several words are easier to "
            "remember than signs"
        )
    print(generate_password_hash(password, method="scrypt"))
    return 0
