"""Asking the box: many viewers cost it no more than one, and a box that hangs holds nobody long."""

import threading
from typing import Any

import pytest

from dashboard.control import AT_ONCE, FRESH_S, STALE_S, Box, BusyError, ControlError

QUESTION = {"get": "settings"}


class Fake:
    """A box that counts what it is asked, and answers when it is let."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[dict[str, Any]] = []
        self.fault: ControlError | None = None
        self.free = {kind: threading.Event() for kind in ("get", "set")}
        for event in self.free.values():
            event.set()
        self.reached = threading.Semaphore(0)
        self.box = Box(self.send, lambda: self.now)

    def send(self, message: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(message)
        number = len(self.asked)
        self.reached.release()
        assert self.free[next(iter(message))].wait(10)
        if self.fault is not None:
            raise self.fault
        return {"number": number}


@pytest.fixture
def fake() -> Fake:
    return Fake()


def test_a_fresh_answer_is_given_again(fake: Fake) -> None:
    assert [fake.box.ask(QUESTION) for _ in range(50)] == [{"number": 1}] * 50
    fake.now += FRESH_S
    assert fake.box.ask(QUESTION) == {"number": 2}
    assert fake.box.ask({"get": "model"}) == {"number": 3}, "another question, another answer"


def test_an_order_always_goes_to_the_box_and_nothing_older_is_told_after_it(fake: Fake) -> None:
    fake.box.ask(QUESTION)
    assert fake.box.ask({"set": {"a": 1}}) == {"number": 2}
    assert fake.box.ask({"set": {"a": 1}}) == {"number": 3}
    assert fake.box.ask(QUESTION) == {"number": 4}


def test_an_answer_that_an_order_overtook_is_not_kept(fake: Fake) -> None:
    fake.free["get"].clear()
    asking = threading.Thread(target=fake.box.ask, args=(QUESTION,))
    asking.start()
    fake.reached.acquire()
    fake.box.ask({"set": {"a": 1}})
    fake.free["get"].set()
    asking.join()
    assert fake.box.ask(QUESTION) == {"number": 3}, "not what was so before the order"


def test_while_one_asks_the_others_get_the_last_answer(fake: Fake) -> None:
    fake.box.ask(QUESTION)
    fake.now += FRESH_S
    fake.free["get"].clear()
    asking = threading.Thread(target=fake.box.ask, args=(QUESTION,))
    asking.start()
    fake.reached.acquire()
    fake.reached.acquire()
    assert fake.box.ask(QUESTION) == {"number": 1}, "at once, though the box hangs"
    fake.free["get"].set()
    asking.join()
    assert fake.box.ask(QUESTION) == {"number": 2}


def test_a_box_that_hangs_is_asked_by_one_and_the_failure_is_told_to_all(fake: Fake) -> None:
    fake.fault = ControlError("no answer")
    for _ in range(20):
        with pytest.raises(ControlError, match="no answer"):
            fake.box.ask(QUESTION)
    assert len(fake.asked) == 1
    fake.fault = None
    fake.now += STALE_S
    assert fake.box.ask(QUESTION) == {"number": 2}


def test_orders_at_a_box_that_hangs_are_few(fake: Fake) -> None:
    fake.free["set"].clear()
    threads = [
        threading.Thread(target=fake.box.ask, args=({"set": {"a": n}},)) for n in range(AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        fake.reached.acquire()
    with pytest.raises(BusyError):
        fake.box.ask({"set": {"a": 99}})
    fake.free["set"].set()
    for thread in threads:
        thread.join()
    assert fake.box.ask({"set": {"a": 99}})
