"""The sending of the audit trail, as the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearcase.audit.forwarder import Forwarder
from nearcase.audit.syslog import Collector

if TYPE_CHECKING:
    from nearcase.audit.trail import AuditTrail
    from nearcase.settings import Settings


def forwarder_of(settings: Settings, trail: AuditTrail) -> Forwarder | None:
    """Returns what sends a trail; None where there is no collector.

    Where it is not known that anything was sent it begins with the oldest record.

    Raises:
        InvalidInput: A certificate can not be used.
    """
    if not settings.audit_syslog:
        return None
    host, _, port = settings.audit_syslog.rpartition(":")
    files = (settings.audit_syslog_ca, settings.audit_syslog_certificate, settings.audit_syslog_key)
    collector = Collector(host.strip("[]"), int(port), *files)
    collector.context()
    chain = trail.chain
    return Forwarder(chain.folder, collector, lambda: chain.head.seq)
