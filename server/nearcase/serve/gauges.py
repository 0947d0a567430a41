"""Numbers that the parts of the server keep, read when a monitoring system asks; none of it waits for a part.

The room of the audit folder's disk alone is asked of the system, in the thread of who asks for metrics.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from nearcase import __version__
from nearcase.serve.canary import ENCODER, INDEX
from nearcase.serve.metrics import Gauge, Gauges

if TYPE_CHECKING:
    from nearcase.serve.auditor import Auditor
    from nearcase.serve.drift import Drift
    from nearcase.serve.engine import Engine
    from nearcase.serve.health import Health
    from nearcase.serve.interceptor import ErrorInterceptor
    from nearcase.serve.receiving import Receiving
    from nearcase.serve.reload import Reload

Values = dict[tuple[str, ...], float]


def server_gauges(
    engine: Engine,
    health: Health,
    interceptor: ErrorInterceptor,
    receiving: Receiving,
    reload: Reload,
    auditor: Auditor | None,
) -> Gauges:
    """Returns what can be read of a running server."""
    parts = (
        _of_runtime(engine),
        _of_health(health),
        _of_index(health),
        _of_recall(engine),
        _of_load(engine, interceptor, receiving),
    )
    gauges = [
        gauge
        for part in (
            *parts,
            _of_audit(engine, auditor),
            _of_drift(engine.metrics.drift),
            _of_children(engine),
            _of_findings(reload),
        )
        for gauge in part
    ]
    return Gauges(gauges, engine.batcher, engine.line)


def _of_runtime(engine: Engine) -> list[Gauge]:
    summary = engine.summary
    about = (__version__, summary.name, summary.version, summary.runtime, str(engine.is_fallback).lower())
    labels = ("version", "encoder", "encoder_version", "runtime", "fallback")
    return [
        Gauge("runtime_info", "What runs; fallback: on the CPU because the GPU can not be had.", _fixed(about), labels),
        Gauge(
            "runtime_fallback", "1 where the encoder runs on the CPU as a fallback.", lambda: _one(engine.is_fallback)
        ),
    ]


def _of_health(health: Health) -> list[Gauge]:
    canary = health.canary

    def broken() -> Values:
        return {(part,): float(canary.broken != part) for part in (ENCODER, INDEX)}

    def serving() -> Values:
        return {(name,): float(is_serving) for name, is_serving in health.serving.items()}

    return [
        Gauge("canary_well", "1 while the canary comes back from the part.", broken, ("part",)),
        Gauge("canary_seconds", "What its last whole journey took.", lambda: _one(canary.took_s)),
        Gauge("serving", "1 while health says SERVING.", serving, ("part",)),
        Gauge("draining", "1 from the signal to stop on.", lambda: _one(health.is_draining)),
    ]


def _of_index(health: Health) -> list[Gauge]:
    def cases() -> Values:
        return _one(sum(part.point_count for part in health.index.parts)) if health.index else {}

    def damaged() -> Values:
        return _one(len(health.index.damaged)) if health.index else {}

    def problem() -> Values:
        return _one(bool(health.index.problem)) if health.index else {}

    def started() -> Values:
        return _one(health.index.started_count) if health.index else {}

    def building() -> Values:
        return _one(health.index.is_building) if health.index else {}

    return [
        Gauge("library_cases", "Cases in the library.", cases),
        Gauge("index_damaged_parts", "Parts of the index that can not be read.", damaged),
        Gauge("index_problem", "1 while sealing or rewriting does not go on.", problem),
        Gauge("index_started", "Starts of the index process since that of the server.", started, is_counter=True),
        Gauge("index_building", "1 while a part is sealed or rewritten.", building),
    ]


def _of_recall(engine: Engine) -> list[Gauge]:
    """Filters by their number only: they hold values of cases."""

    def recall() -> Values:
        rows = engine.recall.last.rows if engine.recall.last else ()
        return {("none" if not row.where else f"filter {number}",): row.recall for number, row in enumerate(rows)}

    def checked() -> Values:
        return _one(engine.recall.last.checked_at_s) if engine.recall.last else {}

    return [
        Gauge("recall", "Share of the exact neighbours that searches find.", recall, ("filter",)),
        Gauge("recall_checked_seconds", "When that was measured, in seconds since 1970.", checked),
    ]


def _of_drift(drift: Drift) -> list[Gauge]:
    def plain() -> Values:
        return {(name,): found.plain for name, found in drift.scores()}

    def adjusted() -> Values:
        return {(name,): found.adjusted for name, found in drift.scores()}

    def share() -> Values:
        return {(name,): found.positive_share for name, found in drift.scores()}

    def unfamiliar() -> Values:
        return {(name,): found for name, found, _ in drift.unfamiliar()}

    def expected() -> Values:
        return {(name,): found for name, _, found in drift.unfamiliar()}

    def groups() -> Values:
        return {(name, attribute): found for name, attribute, found in drift.groups()}

    return [
        Gauge("score_drift", "Distance of recent scores from the fit's, 0 to 1.", plain, ("finding",)),
        Gauge("score_drift_adjusted", "The same at the best share of positives.", adjusted, ("finding",)),
        Gauge("score_positive_share", "That share.", share, ("finding",)),
        Gauge("unfamiliar_share", "Recent images farther from all cases than the fit's.", unfamiliar, ("finding",)),
        Gauge("unfamiliar_expected_share", "What it was in the fit.", expected, ("finding",)),
        Gauge("group_drift", "Stability index of the patients' groups.", groups, ("finding", "attribute")),
    ]


def _of_children(engine: Engine) -> list[Gauge]:
    sandbox, texts = engine.preparer.sandbox, engine.texts
    return [
        Gauge("decoding_children", "Children that decode.", lambda: _one(len(sandbox.pids))),
        Gauge(
            "decoding_children_started",
            "Since the server's start, the first included.",
            lambda: _one(sandbox.started_count),
            is_counter=True,
        ),
        Gauge("texts_waiting", "Texts that wait for the encoder or are in it.", lambda: _one(texts.waiting)),
    ]


def _of_load(engine: Engine, interceptor: ErrorInterceptor, receiving: Receiving) -> list[Gauge]:
    kinds = {"requests": interceptor.requests, "streams": interceptor.streams, "slow_uploads": receiving.places}

    def taken() -> Values:
        return {(kind,): float(places.taken) for kind, places in kinds.items()}

    return [
        Gauge("in_progress", "Requests, adding streams, and messages that are slow to arrive.", taken, ("kind",)),
        Gauge("bytes_in_flight", "Bytes of requests in progress.", lambda: _one(engine.flight.held_bytes)),
    ]


def _of_audit(engine: Engine, auditor: Auditor | None) -> list[Gauge]:
    audit = engine.audit
    if audit is None or auditor is None:
        return []
    folder = engine.settings.audit_trail_folder

    def free() -> Values:
        try:
            return _one(shutil.disk_usage(folder).free)
        except OSError:  # a disk that refuses is told by audit_writable
            return {}

    return [
        Gauge("audit_records", "Records of the audit trail.", lambda: _one(audit.chain.records), is_counter=True),
        Gauge("audit_failures", "Events that could not be recorded.", lambda: _one(audit.failures), is_counter=True),
        Gauge(
            "audit_damages", "Times the trail was found damaged.", lambda: _one(audit.chain.damages), is_counter=True
        ),
        Gauge("audit_unsent", "Records that the collector does not have yet.", lambda: _one(auditor.unsent)),
        Gauge("audit_writable", "0 while no record can be kept.", lambda: _one(not audit.problem)),
        Gauge("audit_free_bytes", "Room on the disk of the audit folder.", free),
    ]


def _of_findings(reload: Reload) -> list[Gauge]:
    def valid() -> Values:
        return _one(reload.is_valid) if reload.is_on else {}

    def read_at() -> Values:
        return _one(reload.read_at_s) if reload.is_on else {}

    return [
        Gauge("findings_valid", "0 while the folder of findings holds a wrong file, and older ones are used.", valid),
        Gauge("findings_read_seconds", "When they were read, in seconds since 1970.", read_at),
    ]


def _fixed(labels: tuple[str, ...]) -> Callable[[], Values]:
    return lambda: {labels: 1.0}


def _one(value: float) -> Values:
    return {(): float(value)}
