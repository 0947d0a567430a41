"""A steady client: it adds and searches all the time, and keeps what it was told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from serving import scan

from nearcase.client import AddItem, Client
from nearcase.errors import NearcaseError, Unready
from nearcase.serve.probes import ask

TELLS_S = 5.0
"""What health may take to tell the truth."""

GOES_ON_S = 20.0
"""Work goes on meanwhile; on a disk that others keep busy three cases may take this long."""

MOST_S = 60.0


@dataclass
class Steady:
    """One client that adds, one that searches, one that asks for health."""

    address: str
    acknowledged: dict[str, str] = field(default_factory=dict)  # request id -> case id
    answers: int = 0
    refusals: list[tuple[str, str]] = field(default_factory=list)  # what was asked, the reason
    faults: list[str] = field(default_factory=list)  # what is no announced refusal
    health: list[tuple[float, bool]] = field(default_factory=list)  # when, and whether every service was ready
    over: threading.Event = field(default_factory=threading.Event)

    def reasons(self, asked: str) -> set[str]:
        """The reasons of the refusals so far."""
        return {reason for kind, reason in self.refusals if kind == asked}

    def forget(self) -> None:
        """Begins to note refusals anew."""
        self.refusals.clear()

    def until(self, holds: Callable[[], bool], within_s: float = MOST_S) -> float:
        """Waits until something holds and returns how long that took."""
        start_s = time.monotonic()
        while not holds():
            assert time.monotonic() - start_s < within_s, f"not within {within_s:g} s; {self.refusals[-3:]}"
            time.sleep(0.05)
        return time.monotonic() - start_s

    def goes_on(self, within_s: float = GOES_ON_S) -> None:
        """Waits until three more cases were acknowledged and three more searches answered, and health says so."""
        added, answered = len(self.acknowledged) + 3, self.answers + 3
        self.until(lambda: len(self.acknowledged) >= added and self.answers >= answered, within_s)
        self.until(lambda: self.is_ready, within_s)

    @property
    def is_ready(self) -> bool:
        """What health said last."""
        return bool(self.health) and self.health[-1][1]

    def adding(self) -> None:
        """Adds one scan after the other."""
        with Client(self.address) as client:
            for number in count():
                if self.over.wait(0.02):
                    return
                with self._noted("add"):
                    (result,) = client.add([AddItem(str(number), scan(1000 + number), {"outcome": "yes"})])
                    if result.error is not None:
                        raise result.error
                    self.acknowledged[result.request_id] = result.case_id

    def searching(self) -> None:
        """Searches with one scan after the other."""
        with Client(self.address) as client:
            for number in count():
                if self.over.wait(0.02):
                    return
                with self._noted("search"):
                    client.search(scan(number % 50), k=3)
                    self.answers += 1

    def watching(self) -> None:
        """Asks whether the services are ready, as `nearcase check --health` does."""
        while not self.over.wait(0.1):
            try:
                told = ask(self.address, timeout_s=TELLS_S)
            except Unready:
                told = {"": False}
            self.health.append((time.monotonic(), all(told.values())))

    @contextmanager
    def _noted(self, asked: str) -> Iterator[None]:
        try:
            yield
        except NearcaseError as error:
            self.refusals.append((asked, error.reason))
            if type(error) is NearcaseError or error.reason in ("", "INTERNAL"):
                self.faults.append(f"{asked}: {error}")
        except Exception as error:  # what a client of ours must never raise
            self.faults.append(f"{asked}: {type(error).__name__}: {error}")


@contextmanager
def steady(address: str) -> Iterator[Steady]:
    """Runs it; what it saw that is no announced refusal fails the test."""
    client = Steady(address)
    work = [threading.Thread(target=each) for each in (client.adding, client.searching, client.watching)]
    for thread in work:
        thread.start()
    try:
        client.goes_on(MOST_S)
        yield client
    finally:
        client.over.set()
        for thread in work:
            thread.join()
    assert client.faults == []


def lost(client: Client, seen: Steady) -> set[str]:
    """Returns what was acknowledged and is not in the library."""
    return set(seen.acknowledged.values()) - {case.case_id for case in client.cases()}
