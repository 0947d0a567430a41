"""What a phase of load came to, and what the server's processes took meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from vectors.processes import tree

from nearcase.errors import Unready
from nearcase.serve.probes import ask
from traffic.generator import ADDED, Outcomes, Phase
from traffic.mix import BAD, SOUND

REFUSED = ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
WRONG = ("INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND")
"""What a bad request may be answered with."""

NORMAL_S = 5
"""Seconds that have to be normal one after the other before the server has recovered."""


@dataclass(frozen=True, slots=True)
class Row:
    """One phase."""

    name: str
    seconds: float
    asked_per_s: float  # sound searches
    answered_per_s: float
    refused_share: float
    p50_ms: float  # of answered sound searches, from when they were due
    p99_ms: float
    refusal_p50_ms: float
    late_p99_ms: float  # how late the generator was
    generator_cpu: float  # cores
    added: int
    unannounced: dict[str, int]  # whatever is neither an answer nor an announced refusal


def row_of(phase: Phase, outcomes: Outcomes, cpu_share: float) -> Row:
    """Returns the figures of a phase."""
    kind, code = np.array(outcomes.kind), np.array(outcomes.code)
    took_ms, late_ms = np.array(outcomes.took_s) * 1e3, np.array(outcomes.late_s) * 1e3
    sound = kind == SOUND
    answered, refused = sound & (code == "OK"), np.isin(code, REFUSED)
    return Row(
        name=phase.name,
        seconds=phase.seconds,
        asked_per_s=float(sound.sum()) / phase.seconds,
        answered_per_s=float(answered.sum()) / phase.seconds,
        refused_share=float((sound & refused).sum() / max(1, sound.sum())),
        p50_ms=_quantile(took_ms[answered], 0.5),
        p99_ms=_quantile(took_ms[answered], 0.99),
        refusal_p50_ms=_quantile(took_ms[refused], 0.5),
        late_p99_ms=_quantile(late_ms[kind != "add"], 0.99),
        generator_cpu=cpu_share,
        added=int((code == ADDED).sum()),
        unannounced=dict(_unannounced(outcomes)),
    )


def _unannounced(outcomes: Outcomes) -> Counter[str]:
    found: Counter[str] = Counter()
    for kind, code, reason in zip(outcomes.kind, outcomes.code, outcomes.reason, strict=True):
        is_refusal = code in REFUSED and bool(reason)
        is_right = code in {SOUND: ("OK",), BAD: ("OK", *WRONG)}.get(kind, (ADDED,))
        if not is_refusal and not (is_right and (code in ("OK", ADDED) or reason)):
            found[f"{kind} {code} {reason}".strip()] += 1
    return found


def recovered_s(after: Outcomes, slow_ms: float, seconds: float) -> float:
    """Returns how long after an overload searches were as before: none refused, half of them faster than `slow_ms`.

    Of so many seconds in a row the first counts; the end of the phase where there were none.
    """
    due, code = np.array(after.due_s), np.array(after.code)
    took_ms, sound = np.array(after.took_s) * 1e3, np.array(after.kind) == SOUND
    row = 0
    for second in range(int(seconds)):
        here = sound & (due >= second) & (due < second + 1)
        is_normal = bool((code[here] == "OK").all()) and _quantile(took_ms[here], 0.5) <= slow_ms
        row = row + 1 if is_normal or not here.any() else 0
        if row == NORMAL_S:
            return float(second + 1 - NORMAL_S)
    return seconds


def _quantile(values: np.ndarray[tuple[int], np.dtype[np.float64]], share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else 0.0


class Watch:
    """Notes the memory of a server and all its processes, and whether it says that it is ready, once a second."""

    def __init__(self, process_id: int, address: str) -> None:
        self._process_id, self._address = process_id, address
        self.memory_mib: list[float] = []
        self.not_ready = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self.memory_mib.append(sum(map(pss_mib, tree(self._process_id))))
            try:
                self.not_ready += not all(ask(self._address, timeout_s=5.0).values())
            except Unready:
                self.not_ready += 1


def pss_mib(pid: int) -> float:
    """Memory of a process, pages that it shares counted in part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0  # it ended
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def thirds(values: Sequence[float]) -> list[float]:
    """The mean of each third."""
    return [float(np.mean(part)) for part in np.array_split(np.array(values), 3)]
