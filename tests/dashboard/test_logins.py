"""Logins that end, guesses that are counted, and what a password's hash may be."""

import io
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.security import check_password_hash, generate_password_hash

from contract.access import Login, configured_login
from contract.errors import UserError
from contract.secret_settings import configured_secret
from dashboard.logins import Attempts, FailureLimit, Logins
from dashboard.password import hash_password
from tests.dashboard.processes import ROOT, environment

PASSWORD = "a wall of many screens"
HASH = generate_password_hash(PASSWORD, "scrypt:1024:8:1")


def test_a_login_ends_after_its_time() -> None:
    now = [100.0]
    logins = Logins(3600, lambda: now[0])
    one = logins.begin()
    now[0] += 3599
    assert logins.valid(one)
    now[0] += 1
    assert not logins.valid(one)


def test_a_login_can_be_ended_and_the_others_stay() -> None:
    logins = Logins(3600)
    one, other = logins.begin(), logins.begin()
    logins.end(one)
    logins.end("nobody's")
    assert (logins.valid(one), logins.valid(other), logins.valid("")) == (False, True, False)


def test_a_flood_of_logins_costs_the_oldest_only() -> None:
    logins = Logins(3600)
    names = [logins.begin() for _ in range(Logins.MOST + 5)]
    assert [logins.valid(name) for name in (names[4], names[5], names[-1])] == [False, True, True]


def test_the_limit_ends_with_its_window() -> None:
    now = [100.0]
    limit = FailureLimit(limit=2, window_s=60, clock=lambda: now[0])
    limit.failed("a")
    now[0] += 10
    limit.failed("a")
    assert limit.wait_s("a") == 50
    assert limit.wait_s("b") == 0
    now[0] += 51
    assert limit.wait_s("a") == 0


def test_the_limit_remembers_a_bounded_number_of_addresses() -> None:
    limit = FailureLimit(limit=1)
    for number in range(limit.ADDRESSES + 50):
        limit.failed(str(number))
    assert limit.wait_s("0") == 0
    assert limit.wait_s(str(limit.ADDRESSES + 49)) > 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_a_host_that_changes_its_ipv6_address_is_the_same_host(
    one: str, other: str, same: bool
) -> None:
    limit = FailureLimit(limit=1)
    limit.failed(one)
    assert (limit.wait_s(other) > 0) == same


def test_a_burst_of_guesses_is_counted_one_by_one() -> None:
    attempts = Attempts(Login(password_hash=HASH), FailureLimit(limit=5))
    outcomes: list[float | None] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(attempts.try_login("no", "192.0.2.1")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(0.0) == 5, "the others were not even compared"
    assert attempts.try_login(PASSWORD, "192.0.2.1") not in (None, 0.0)
    assert attempts.try_login(PASSWORD, "192.0.2.2") is None


@given(guess=st.text())
def test_only_the_secret_itself_opens(guess: str) -> None:
    attempts = Attempts(Login(token="the token"), FailureLimit(limit=10**6))
    assert (attempts.try_token(guess, "a") is None) == (guess == "the token")
    assert (attempts.try_login(guess, "a") is None) == (guess == "the token")


def test_without_a_secret_nothing_opens() -> None:
    attempts = Attempts(Login(), FailureLimit())
    assert attempts.try_login("", "a") == 0.0
    assert attempts.try_token("", "a") == 0.0


def test_secrets_come_from_the_environment_a_file_or_a_credential(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from file\n")
    (tmp_path / "fer-x-token").write_text("from systemd\n")
    assert configured_secret("FER_X_TOKEN", {}) is None
    assert configured_secret("FER_X_TOKEN", {"FER_X_TOKEN": "from env"}) == "from env"
    assert configured_secret("FER_X_TOKEN", {"FER_X_TOKEN_FILE": str(file)}) == "from file"
    handed = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert configured_secret("FER_X_TOKEN", handed) == "from systemd"
    assert configured_secret("FER_Y_TOKEN", handed) is None, "other credentials are no matter"
    with pytest.raises(UserError, match="FER_X_TOKEN and credential fer-x-token"):
        configured_secret("FER_X_TOKEN", {**handed, "FER_X_TOKEN": "a"})


@pytest.mark.parametrize(
    "variables",
    [
        {"FER_DASHBOARD_TOKEN": " "},
        {"FER_DASHBOARD_TOKEN_FILE": "/nowhere/token"},
        {"FER_DASHBOARD_TOKEN": "a", "FER_DASHBOARD_TOKEN_FILE": "/etc/hostname"},
        {"FER_DASHBOARD_PASSWORD_HASH": PASSWORD},
        {"FER_DASHBOARD_PASSWORD_HASH": "scrypt:32768:8:1$salt"},
    ],
)
def test_a_broken_secret_is_a_user_error_that_does_not_show_it(variables: dict[str, str]) -> None:
    with pytest.raises(UserError, match="FER_DASHBOARD_") as error:
        configured_login(variables)
    assert PASSWORD not in str(error.value)


def test_a_hash_with_impossible_parameters_is_refused_at_the_start() -> None:
    login = configured_login({"FER_DASHBOARD_PASSWORD_HASH": "scrypt:16:1:1$salt$00"})
    with pytest.raises(UserError, match="FER_DASHBOARD_PASSWORD_HASH"):
        Attempts(login, FailureLimit())


def test_hash_password_prints_what_the_dashboard_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dashboard", "hash-password"],
        input=f"{PASSWORD}\n", capture_output=True, text=True, cwd=ROOT, env=environment(),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    login = configured_login({"FER_DASHBOARD_PASSWORD_HASH": done.stdout})
    assert login.password_hash is not None
    assert check_password_hash(login.password_hash, PASSWORD)
    assert PASSWORD not in done.stdout


def test_a_short_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hunter2\n"))
    with pytest.raises(UserError, match="12 characters"):
        hash_password()
