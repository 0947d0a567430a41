"""What the server tells a monitoring system, in Prometheus' format; every name begins with nearcase_.

Labels have few values and none is about a patient. Numbers that others keep (the batcher's counts, what the index is
made of) are read when somebody asks, so that they cost nothing in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import SHUT_RDWR
from threading import Thread, Timer
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from nearcase.decide.groups import groups_of
from nearcase.encode.buckets import BUCKETS
from nearcase.errors import Unready
from nearcase.serve.drift import Drift

if TYPE_CHECKING:
    from nearcase.decide.fitted import Fitted
    from nearcase.encode.batcher import Batcher
    from nearcase.serve.line import Line
    from nearcase.types import CaseFacts, Decision, Hit

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIMILARITIES = tuple(round(0.05 * step, 2) for step in range(-4, 21))

UNDECLARED = "undeclared"

CONNECTION_S = 10.0
"""For one request for metrics and its answer, as long as Prometheus waits by default."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """The server's own counters; made once and handed to those who count."""

    registry: CollectorRegistry
    requests: Counter  # by rpc and code
    request_seconds: Histogram  # by rpc
    stage_seconds: Histogram  # by stage (receive, decode, queue, encode, search, decide) and work (asking, adding)
    calls: Counter  # decisions by finding and call
    abstentions: Counter  # by finding and reason
    best_similarity: Histogram  # of each search's first hit
    scores: Histogram  # of decisions, by finding
    patients: Counter  # decisions by finding, attribute and group of the patient
    refused: Counter  # requests that were not admitted, by reason
    drift: Drift = field(default_factory=Drift)

    def take_stages(self, taken_ms: Mapping[str, float], *, adding: bool = False) -> None:
        """Takes in what stages of one image or request took."""
        for stage, taken in taken_ms.items():
            self.stage_seconds.labels(stage, "adding" if adding else "asking").observe(taken / 1e3)

    def take_hits(self, hits: Sequence[Hit]) -> None:
        """Takes in how near the nearest case of a search is."""
        if hits:
            self.best_similarity.observe(max(hit.similarity for hit in hits))

    def take_decision(self, decision: Decision, fitted: Fitted | None, facts: CaseFacts, *, is_declared: bool) -> None:
        """Takes in a decision; labels of the library that nobody declared a finding for are one name.

        Args:
            decision: What was said.
            fitted: What the finding was fitted on; None to leave the comparison with it out.
            facts: What the image says of its patient.
            is_declared: Whether an operator named the finding.
        """
        name = decision.finding if is_declared else UNDECLARED
        self.calls.labels(name, decision.call.value).inc()
        if decision.abstain_reason:
            self.abstentions.labels(name, decision.abstain_reason).inc()
        if decision.score is not None:
            self.scores.labels(name).observe(decision.score)
        if fitted is not None:
            self.drift.take(decision, fitted, facts)
            for group in groups_of(facts, fitted.groups, ()):
                self.patients.labels(name, group.attribute, group.name).inc()


def make_metrics() -> Metrics:
    """Returns counters in a registry of their own, all at zero."""
    registry = CollectorRegistry()

    def counter(name: str, says: str, *labels: str) -> Counter:
        return Counter(f"nearcase_{name}", says, labels, registry=registry)

    def histogram(name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"nearcase_{name}", says, labels, buckets=buckets, registry=registry)

    tenths = tuple(round(0.1 * step, 1) for step in range(1, 11))
    return Metrics(
        registry=registry,
        requests=counter("requests", "Requests that ended.", "rpc", "code"),
        request_seconds=histogram("request_seconds", "From the first byte to the answer.", SECONDS, "rpc"),
        stage_seconds=histogram("stage_seconds", "Time in each stage of the way.", SECONDS, "stage", "work"),
        calls=counter("decisions", "Decisions by what they said.", "finding", "call"),
        abstentions=counter("abstentions", "Decisions that were not made, by reason.", "finding", "reason"),
        best_similarity=histogram("best_similarity", "Cosine of the first hit of each search.", SIMILARITIES),
        scores=histogram("decision_score", "Scores of decisions.", tenths, "finding"),
        patients=counter(
            "decision_patients", "Decisions by the group of the patient.", "finding", "attribute", "group"
        ),
        refused=counter("refused_requests", "Requests that were not admitted.", "reason"),
    )


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that is read when somebody asks for it."""

    name: str
    says: str
    read: Callable[[], dict[tuple[str, ...], float]]  # label values to number
    labels: tuple[str, ...] = ()
    is_counter: bool = False  # it only grows


class Gauges(Collector):
    """Reads what others keep: the batcher, the line, the index, the recall check, the canary."""

    def __init__(self, gauges: list[Gauge], batcher: Batcher, line: Line) -> None:
        self._gauges, self._batcher, self._line = gauges, batcher, line

    def collect(self) -> Iterator[Metric]:
        """Yields every number as it is now."""
        for gauge in self._gauges:
            kind = CounterMetricFamily if gauge.is_counter else GaugeMetricFamily
            family = kind(f"nearcase_{gauge.name}", gauge.says, labels=gauge.labels)
            for labels, value in gauge.read().items():
                family.add_metric(labels, value)
            yield family
        yield from _of_batcher(self._batcher)
        says = "Requests that wait for a turn or were refused within a second, and images that wait for the encoder."
        waiting = self._line.demand + self._batcher.waiting
        yield GaugeMetricFamily("nearcase_encoder_queue", says, value=waiting)


def _of_batcher(batcher: Batcher) -> Iterator[Metric]:
    counts = batcher.counts
    images = CounterMetricFamily("nearcase_encoder_images", "Images by what became of them.", labels=["outcome"])
    for outcome in ("embedded", "cancelled", "expired", "refused", "failed"):
        images.add_metric([outcome], getattr(counts, outcome))
    yield images
    yield _batch_sizes(dict(counts.batches))
    yield CounterMetricFamily(
        "nearcase_encoder_padding", "Places of batches that no image filled.", value=counts.padded
    )
    yield GaugeMetricFamily("nearcase_encoder_running", "Batches in the encoder.", value=batcher.running)


def _batch_sizes(by_size: dict[int, int]) -> Metric:
    """A histogram whose buckets are the sizes that a GPU's buffers have."""
    family = HistogramMetricFamily("nearcase_encoder_batch_size", "Images in each call of the encoder.")
    below = [(f"{edge:.1f}", sum(count for size, count in by_size.items() if size <= edge)) for edge in BUCKETS]
    images = sum(size * count for size, count in by_size.items())
    family.add_metric([], [*below, ("+Inf", sum(by_size.values()))], sum_value=images)
    return family


class _Timed(WSGIRequestHandler):
    """Gives up what sends half a request, or takes half an answer: each keeps a thread and a file of the server."""

    def setup(self) -> None:
        """The whole of a connection has one time, so that a byte now and then gains none."""
        super().setup()
        self._end = Timer(CONNECTION_S, self._give_up)
        self._end.daemon = True
        self._end.start()

    def finish(self) -> None:
        """Ends in time, as nearly all do."""
        self._end.cancel()
        super().finish()

    def _give_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class MetricsPort:
    """A port that a monitoring system reads from, in threads of its own; off where there is no address."""

    def __init__(self) -> None:
        self._served: tuple[WSGIServer, Thread] | None = None
        self.address = ""

    def start(self, address: str, registry: CollectorRegistry) -> None:
        """Listens on HOST:PORT, where one is given; port 0 takes a free one.

        Raises:
            Unready: The address can not be had.
        """
        if not address:
            return
        host, _, port = address.rpartition(":")
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), registry)
            server.RequestHandlerClass = _Timed  # the library's own waits for ever
        except OSError as error:
            raise Unready(f"can not show metrics on {address}: {error.strerror}", reason="ADDRESS") from error
        self._served, self.address = (server, thread), f"{host}:{server.server_port}"

    def stop(self) -> None:
        """Closes the port; blocks for a moment."""
        if self._served is not None:
            server, thread = self._served
            server.shutdown()
            server.server_close()
            thread.join()
            self._served = None
