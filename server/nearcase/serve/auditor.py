"""Keeps the audit record of every call: an answer goes out only after its record is on the disk.

It stands behind the gate, which knows the caller, and before everything else. A call that changes something, or gives
cases away, has a record before it begins too. A call that shows nothing (a refusal, an error) waits for nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import grpc

from nearcase import __version__
from nearcase.audit.event import BEGIN, CALL, END, ERASED, PART, REFUSED, START, STOP, AuditEvent, Said
from nearcase.errors import NearcaseError, Unready
from nearcase.serve.caller import current
from nearcase.serve.collector import forwarder_of
from nearcase.serve.context import Context, Handler
from nearcase.serve.notes import Notes, begin_notes
from nearcase.serve.ready import ready_in
from nearcase.serve.refusals import LOOK_S, Refusal, Refusals
from nearcase.serve.roles import NEEDED

if TYPE_CHECKING:
    from nearcase.audit.forwarder import Forwarder
    from nearcase.audit.trail import AuditTrail
    from nearcase.clock import Clock
    from nearcase.serve.engine import Engine
    from nearcase.types import Decision, EncoderSummary, Erasure

_OURS = "/nearcase."
_LIBRARY = "v1.LibraryService/"
CHANGING = frozenset(
    _LIBRARY + name for name in ("AddImages", "UpdateCase", "MergePatients", "EraseCases", "ImportCases", "ExportCases")
)
"""Calls that have a record before they begin."""

ALWAYS = CHANGING | {"v1.DecisionService/Decide", "v1.DecisionService/DecideStream"}
"""Calls whose answer waits for its record even where the setting `audit` is "relaxed"."""

ADDING = _LIBRARY + "AddImages"
MOST_AT_ONCE = 256
"""Results of an adding stream that one record tells of, where so many are ready."""


REQUEST_ID = "nearcase-request-id"
"""In the trailers of every answer: what its record is found by."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One request, as far as it is known when it begins."""

    request_id: str
    rpc: str
    peer: str
    notes: Notes


class Auditor(grpc.aio.ServerInterceptor):
    """Writes the trail of a server.

    Args:
        trail: Where records go.
        clock: Tells when.
        encoder: What made the embeddings.
        waits_for_all: Every answer waits for its record; else only those of ALWAYS.
        forwarder: Sends records to a collector; None sends none.
    """

    def __init__(
        self,
        trail: AuditTrail,
        clock: Clock,
        encoder: EncoderSummary,
        *,
        waits_for_all: bool,
        forwarder: Forwarder | None = None,
    ) -> None:
        self._trail, self._clock, self._waits_for_all = trail, clock, waits_for_all
        self._forwarder = forwarder
        self._encoder = f"{encoder.name} {encoder.version} {encoder.sha256}"
        self._refusals = Refusals(clock)
        self._teller: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, engine: Engine) -> Auditor | None:
        """Returns the auditor of a server; None where no trail is kept."""
        if engine.audit is None:
            return None
        strict, forwarder = engine.settings.audit == "strict", forwarder_of(engine.settings, engine.audit)
        return cls(engine.audit, engine.clock, engine.summary, waits_for_all=strict, forwarder=forwarder)

    @property
    def unsent(self) -> int:
        """Records that the collector does not have; 0 without one."""
        return self._forwarder.unsent if self._forwarder else 0

    async def started(self) -> None:
        """Begins, and records that the server does.

        Raises:
            Unready: That can not be recorded; the server must not start.
        """
        self._trail.start()
        if self._forwarder:
            self._trail.on_written = self._forwarder.nudge
            self._forwarder.start()
        await self._trail.keep(self._of_server(START))
        self._teller = asyncio.get_running_loop().create_task(self._tell_due(), name="audit refusals")

    async def close(self) -> None:
        """Records that the server stops, and closes the trail."""
        if self._teller:
            self._teller.cancel()
            await asyncio.gather(self._teller, return_exceptions=True)
        self._tell_refused(self._refusals.rest())
        with suppress(Unready):
            await self._trail.keep(self._of_server(STOP))
        if self._forwarder:
            await self._forwarder.close()
        await self._trail.close()

    def erased(self, done: Erasure) -> None:
        """Records an erasure that nobody asked for: cases were kept for as long as they may be."""
        event = AuditEvent(ERASED, self._clock.now_s(), count=done.case_count, detail=f"erased {done.erasure_id}")
        with suppress(Unready):
            self._trail.put(event)

    def _of_server(self, kind: str) -> AuditEvent:
        return AuditEvent(kind, self._clock.now_s(), encoder=self._encoder, detail=f"nearcase {__version__}")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps every handler of ours."""
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        rpc, call = method.removeprefix(_OURS), cast(Any, handler)
        read, write = call.request_deserializer, call.response_serializer
        if call.response_streaming:
            if call.request_streaming:
                return grpc.stream_stream_rpc_method_handler(self._streaming(call.stream_stream, rpc), read, write)
            return grpc.unary_stream_rpc_method_handler(self._streaming(call.unary_stream, rpc), read, write)
        if call.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._answering(call.stream_unary, rpc), read, write)
        return grpc.unary_unary_rpc_method_handler(self._answering(call.unary_unary, rpc), read, write)

    def refused(self, method: str, error: NearcaseError, context: Context) -> None:
        """Tells of a call that the gate did not let in; many of one kind are one record."""
        if error.reason == "AUDIT_NOT_KEPT":
            return
        count = self._refusals.take(Refusal(current(), error.code, error.reason))
        if not count:
            return
        rpc = method.removeprefix(_OURS) if method in NEEDED else "unknown"
        call = _Call(secrets.token_hex(8), rpc, self._peer(context), Notes())
        event = self._event(call, END, code=error.code, reason=error.reason, kind=REFUSED, count=count)
        with suppress(Unready):
            self._trail.put(event)

    async def _tell_due(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._tell_refused(self._refusals.due())

    def _tell_refused(self, counted: Sequence[tuple[Refusal, int]]) -> None:
        """Tells of the refusals that were only counted so far."""
        for each, count in counted:
            event = AuditEvent(REFUSED, self._clock.now_s(), code=each.code, reason=each.reason, count=count)
            with suppress(Unready):
                self._trail.put(replace(event, caller=each.caller.name, tenant=each.caller.tenant))

    def _answering(self, inner: Any, rpc: str) -> Any:
        async def handle(given: Any, context: Context) -> Any:
            call = await self._begin(rpc, context)
            try:
                answer = await inner(given, context)
            except BaseException as error:
                self._failed(call, context, error)
                raise
            await self._keep(call, self._event(call, END, code="OK"))
            context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
            return answer

        return handle

    def _streaming(self, inner: Any, rpc: str) -> Any:
        async def handle(given: Any, context: Context) -> AsyncIterator[Any]:
            call = await self._begin(rpc, context)
            context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
            try:
                most = MOST_AT_ONCE if rpc == ADDING else 1
                async with aclosing(ready_in(inner(given, context), most)) as parts:
                    async for ready in parts:
                        await self._keep(call, self._event(call, PART, code="OK", detail=f"{len(ready)} messages"))
                        for response in ready:
                            yield response
            except BaseException as error:
                self._failed(call, context, error)
                raise
            await self._keep(call, self._event(call, END, code="OK"))

        return handle

    async def _begin(self, rpc: str, context: Context) -> _Call:
        """Raises Unready where nothing can be written: then nothing is begun."""
        self._trail.check()
        call = _Call(secrets.token_hex(8), rpc, self._peer(context), begin_notes())
        if rpc in CHANGING:
            await self._trail.keep(self._event(call, BEGIN))
        return call

    async def _keep(self, call: _Call, event: AuditEvent) -> None:
        if self._waits_for_all or call.rpc in ALWAYS:
            await self._trail.keep(event)
        else:
            self._trail.check()
            self._trail.put(event)

    def _failed(self, call: _Call, context: Context, error: BaseException) -> None:
        """Nobody was shown anything, so nobody waits."""
        if isinstance(error, NearcaseError):  # ours, from the trail itself: it is known there
            return
        code = cast(object, context.code())
        name = code.name if isinstance(code, grpc.StatusCode) else "CANCELLED"
        given = [value for key, value in context.trailing_metadata() or () if key == "nearcase-reason"]
        with suppress(Unready):
            self._trail.put(self._event(call, END, code=name, reason=str(given[0]) if given else ""))

    def _event(
        self,
        call: _Call,
        phase: str,
        *,
        code: str = "",
        reason: str = "",
        kind: str = CALL,
        count: int = 0,
        detail: str = "",
    ) -> AuditEvent:
        caller, noted, named = current(), call.notes.drain(), self._trail.key.named

        def names(what: str, values: Iterable[str]) -> tuple[str, ...]:
            return tuple(named(caller.tenant, what, value) for value in values if value)

        return AuditEvent(
            kind=kind,
            at_s=self._clock.now_s(),
            request_id=call.request_id,
            phase=phase,
            rpc=call.rpc,
            code=code,
            reason=reason,
            caller=caller.name,
            tenant=caller.tenant,
            peer=call.peer,
            about=tuple(named(caller.tenant, what, value) for what, value in noted.about),
            cases=names("case", noted.cases),
            patients=names("patient", noted.patients),
            count=count or noted.count or len(noted.cases),
            encoder=self._encoder if noted.cases or noted.about else "",
            library=noted.library,
            decisions=tuple(map(_said, noted.decisions)),
            target=noted.target,
            detail=noted.detail or detail,
        )

    def _peer(self, context: Context) -> str:
        """The address without its port, which differs each time."""
        return self._trail.key.named("", "peer", context.peer().rpartition(":")[0])


def _said(decision: Decision) -> Said:
    point, rule_out = decision.operating_point, decision.rule_out_point
    return Said(
        finding=decision.finding,
        call=decision.call.value,
        reason=decision.abstain_reason,
        operating_point=point.name if point else "",
        rule_out_point=rule_out.name if rule_out else "",
        record_id=decision.record_id,
    )
