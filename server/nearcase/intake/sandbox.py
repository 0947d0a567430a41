"""A pool of killable, limited child processes that read bytes which nobody vouches for.

A dead, hung or oversized child costs the one call that met it one typed error, and nothing else (decoders of
medical formats are long-lived C code, and a file of 1 MB can ask for 2 GB).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from nearcase.errors import NearcaseError, Overloaded, Unready
from nearcase.intake.wire import JsonObject
from nearcase.intake.worker import Limits, Result, Worker
from nearcase.processors import processor_count

CODEC_PLUGINS = ("gdcm", "jpeg_ls", "libjpeg", "openjpeg", "pylibjpeg", "rle")
"""What pydicom imports by itself where it is installed; we decode with imagecodecs and keep the rest out."""


def default_workers() -> int:
    """One child per usable core, at most two: an idle child costs about 40 MiB."""
    return min(2, processor_count())


class Sandbox:
    """Runs one function on bytes, in child processes; run() blocks and is safe in threads.

    Args:
        job: A function at the top of an importable module; it takes the bytes and the options, and returns a JSON
            object and a list of byte strings. It runs in a child without the server's environment, stderr or
            descriptors.
        workers: Children, hence jobs at the same time.
        wall_s: How long one job may take.
        cpu_s: How much processor time one job may take.
        memory_bytes: Private writable memory of a child (RLIMIT_DATA), interpreter and libraries included.
        result_bytes: All byte strings of one result together.
        jobs_per_worker: After so many jobs another child takes over from a child, so that no leak lives for long.
        wait_s: How long a call may wait for a free child.
        barred: Modules that a child must not import.
    """

    def __init__(
        self,
        job: Callable[[bytes, JsonObject], Result],
        *,
        workers: int | None = None,
        wall_s: float = 10.0,
        cpu_s: int = 10,
        memory_bytes: int = 960 << 20,
        result_bytes: int = 256 << 20,
        jobs_per_worker: int = 500,
        wait_s: float = 60.0,
        barred: tuple[str, ...] = CODEC_PLUGINS,
    ) -> None:
        if job.__module__ == "__main__" or "." in job.__qualname__:
            raise ValueError("the job must be a function at the top of a module that a child can import")
        self._job = job
        self._limits = Limits(wall_s=wall_s, cpu_s=cpu_s, memory_bytes=memory_bytes, result_bytes=result_bytes)
        self._jobs_per_worker = jobs_per_worker
        self._wait_s = wait_s
        self._barred = barred
        self._lock = threading.Lock()  # guards _closed and _alive
        self._closed = False
        self._alive: set[Worker] = set()
        self.started_count = 0  # children; each beyond the first few replaces one that died or grew old
        # Last in, first out: one caller at a time keeps one child warm and leaves the others swapped out.
        self._free: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(workers or default_workers()):
            self._free.put(self._new_worker())

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the children that are there now, for measuring and for metrics."""
        with self._lock:
            return tuple(sorted(worker.pid for worker in self._alive))

    def wait_ready(self) -> None:
        """Blocks until every child has imported the job.

        Raises:
            Unready: A child can not start.
        """
        with self._lock:
            workers = tuple(self._alive)
        for worker in workers:
            worker.wait_ready()

    def run(
        self, data: bytes, options: JsonObject | None = None, *, meanwhile: Callable[[], object] = lambda: None
    ) -> Result:
        """Returns job(data, options), computed in a child.

        Args:
            data: The job's input.
            options: What it is told besides.
            meanwhile: Called in this thread while the child works; it must be short.

        Raises:
            InvalidInput: What the job said; or reason DECODE_LIMIT, the data took too much time or memory; or reason
                DECODE_CRASH, it killed the child.
            Overloaded: No child became free in time.
            Unready: The children can not start, or the sandbox was closed.
            NearcaseError: Whatever else the job raised, with the text left out.
        """
        with self._lent() as worker:
            try:
                worker.wait_ready()
                return worker.ask(data, options or {}, meanwhile)
            except NearcaseError:
                self._refuse_when_closed()
                raise

    def close(self) -> None:
        """Ends all children at once; calls that are running end in Unready."""
        with self._lock:
            self._closed = True
            workers = tuple(self._alive)
        for worker in workers:
            worker.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                self._dismiss(self._free.get_nowait())
        self._free.put(None)  # wakes a call that waits, which then wakes the next

    @contextmanager
    def _lent(self) -> Iterator[Worker]:
        try:
            worker = self._free.get(timeout=self._wait_s)
        except queue.Empty:
            self._refuse_when_closed()
            raise Overloaded(f"no decoder became free within {self._wait_s:g} s") from None
        try:
            if worker is None or not worker.is_usable:
                worker, dead = None, worker
                worker = self._after(dead)
            yield worker
        finally:
            self._free.put(self._kept_or_renewed(worker))

    def _kept_or_renewed(self, worker: Worker | None) -> Worker | None:
        """None when a new child can not be had now: the next call tries again."""
        if worker is not None and worker.is_usable:
            return worker if worker.jobs_done < self._jobs_per_worker else self._succeeded(worker)
        try:
            return self._after(worker)
        except Unready:
            return None

    def _after(self, dead: Worker | None) -> Worker:
        heir = None
        if dead is not None:
            heir, dead.heir = dead.heir, None
            self._dismiss(dead)
        return heir or self._new_worker()

    def _succeeded(self, worker: Worker) -> Worker:
        """An old child goes on until its heir has started, so that no call waits for that."""
        heir = worker.heir
        if heir is None:
            with contextlib.suppress(Unready):  # then the old one goes on, and the next call tries again
                worker.heir = self._new_worker()
        elif heir.has_started:
            worker.heir = None
            if heir.is_usable:
                self._dismiss(worker)
                return heir
            self._dismiss(heir)
            worker.jobs_done = 0  # another round, in place of a child that does not start after each job
        return worker

    def _new_worker(self) -> Worker:
        self._refuse_when_closed()
        try:
            worker = Worker(self._job, self._limits, self._barred)
        except OSError as error:
            reason = f"a sandboxed process can not be started ({type(error).__name__})"
            raise Unready(reason, reason="SANDBOX_UNREADY") from None
        with self._lock:
            self.started_count += 1
            self._alive.add(worker)
            if not self._closed:
                return worker
        self._dismiss(worker)
        raise Unready("the server is stopping", reason="STOPPING")

    def _dismiss(self, worker: Worker | None) -> None:
        if worker is not None:
            self._dismiss(worker.heir)
            worker.close()
            with self._lock:
                self._alive.discard(worker)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise Unready("the server is stopping", reason="STOPPING") from None
