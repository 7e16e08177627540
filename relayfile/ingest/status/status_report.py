"""What `GetIngestStatus` says: the shard's counters and what ingest processes still hold, put together.

Owns the merging, the age of each part and the health of a provider. Pure. Refuses to ask anybody.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from relayfile import alerts
from relayfile.alerts import AlertLimits
from relayfile.errors import InvalidArgument
from relayfile.ingest.status.owner_outcomes import OwnerAnswer
from relayfile.v1 import ingest_pb2, shard_pb2
from relayfile.wire import to_us

_OUTCOMES: Final = (
    "applied",
    "coalesced",
    "duplicate",
    "suppressed",
    "stale",
    "unchanged",
    "ignored",
    "dead_lettered",
)


PROFILES: Final[Mapping[int, AlertLimits]] = {
    ingest_pb2.ALERT_PROFILE_UNSPECIFIED: alerts.BALANCED,
    ingest_pb2.ALERT_PROFILE_STRICT: alerts.STRICT,
    ingest_pb2.ALERT_PROFILE_BALANCED: alerts.BALANCED,
    ingest_pb2.ALERT_PROFILE_RELAXED: alerts.RELAXED,
}


@dataclass(frozen=True, slots=True)
class HeldHere:
    """What this process holds."""

    ingest_id: str
    pending: Sequence[shard_pb2.PendingReport]
    refused: Mapping[str, int]
    """Provider to requests refused."""
    spool_bytes: int
    spool_bytes_max: int
    queued_objects: int
    paused: frozenset[str] = frozenset()
    """Providers of the workspace that it was told last are paused; an empty one stands for all."""


def limits_of(request: ingest_pb2.GetIngestStatusRequest) -> AlertLimits:
    """The alert limits that a request names."""
    if request.alert_profile != ingest_pb2.ALERT_PROFILE_CUSTOM:
        if request.alert_profile not in PROFILES:
            raise InvalidArgument.of("alert_profile", "must be strict, balanced, relaxed or custom")
        return PROFILES[request.alert_profile]
    custom = request.custom_limits
    if not 0 <= custom.dead_lettered_ratio_max <= 1:
        raise InvalidArgument.of("custom_limits.dead_lettered_ratio_max", "must be from 0 to 1")
    return AlertLimits(custom.lag_max.ToMilliseconds() / 1000, custom.dead_lettered_ratio_max)


def merge(
    shards: Iterable[OwnerAnswer], here: HeldHere, limits: AlertLimits, provider: str, now_us: int
) -> ingest_pb2.GetIngestStatusResponse:
    """The status: ``shards`` are the answers of the owners that were asked, ``provider`` (or empty) narrows it."""
    merged: dict[str, ingest_pb2.ProviderStatus] = {}
    response = ingest_pb2.GetIngestStatusResponse(
        spool_bytes=here.spool_bytes, spool_bytes_max=here.spool_bytes_max, queued_objects=here.queued_objects
    )
    reports: dict[str, list[shard_pb2.IngestReport]] = {}
    is_complete = True
    for shard in shards:
        part = response.parts.add(source=shard.source, missing_reason=shard.missing_reason)
        if shard.outcomes is None:
            is_complete = False
            continue
        part.age.FromMicroseconds(0)
        for status in shard.outcomes.providers:
            _add_outcomes(_of(merged, status.provider), status)
        for report in shard.outcomes.reports:
            # What this process holds is known here, and newer.
            if report.ingest_id != here.ingest_id:
                reports.setdefault(report.ingest_id, []).append(report)
    for ingest_id, theirs in sorted(reports.items()):
        pending = [each for report in theirs for each in report.pending]
        age_us = now_us - min(to_us(report.report_time) for report in theirs)
        _add_part(response, merged, ingest_id, pending, age_us, now_us)
    _add_part(response, merged, here.ingest_id, here.pending, 0, now_us)
    for name, count in here.refused.items():
        _of(merged, name).refused += count
    for name in sorted(merged):
        if not provider or name == provider:
            status = merged[name]
            if not is_complete and (name in here.paused or "" in here.paused):
                status.paused = True  # the owner would say it
            outcomes = sum(getattr(status, outcome) for outcome in _OUTCOMES)
            status.accepted = outcomes + status.pending
            status.health = _health(status, outcomes, limits)
            response.providers.append(status)
    return response


def _of(merged: dict[str, ingest_pb2.ProviderStatus], provider: str) -> ingest_pb2.ProviderStatus:
    if provider not in merged:
        merged[provider] = ingest_pb2.ProviderStatus(provider=provider)
    return merged[provider]


def _add_outcomes(into: ingest_pb2.ProviderStatus, status: ingest_pb2.ProviderStatus) -> None:
    for outcome in _OUTCOMES:
        setattr(into, outcome, getattr(into, outcome) + getattr(status, outcome))
    if to_us(status.last_received_time) > to_us(into.last_received_time):
        into.last_received_time.CopyFrom(status.last_received_time)
    for reason, count in status.failure_reasons.items():
        into.failure_reasons[reason] += count
    into.paused = into.paused or status.paused


def _add_part(
    response: ingest_pb2.GetIngestStatusResponse,
    merged: dict[str, ingest_pb2.ProviderStatus],
    source: str,
    reports: Sequence[shard_pb2.PendingReport],
    age_us: int,
    now_us: int,
) -> None:
    part = response.parts.add(source=source, pending=sum(each.pending for each in reports))
    part.age.FromMicroseconds(max(0, age_us))
    for each in reports:
        status = _of(merged, each.provider)
        status.pending += each.pending
        status.refused += each.refused
        if each.pending and each.oldest_received_unix_us:
            waiting_us = max(0, now_us - each.oldest_received_unix_us)
            if waiting_us > status.oldest_pending_age.ToMicroseconds():
                status.oldest_pending_age.FromMicroseconds(waiting_us)


def _health(
    status: ingest_pb2.ProviderStatus, outcomes: int, limits: AlertLimits
) -> ingest_pb2.ProviderHealth.ValueType:
    if limits.are_too_many(status.dead_lettered, outcomes):
        return ingest_pb2.PROVIDER_HEALTH_ERROR
    # What is paused is old because somebody wanted it so.
    if not status.paused and limits.is_too_old(status.oldest_pending_age.ToMicroseconds()):
        return ingest_pb2.PROVIDER_HEALTH_LAGGING
    return ingest_pb2.PROVIDER_HEALTH_HEALTHY
