"""Audits and scrubs as streams: progress and findings as they come, the result last.

Owns the messages of `Audit` and `Scrub` and the pace of its progress. What is looked at is the auditor's business.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from relayfile.clock import Clock
from relayfile.store.integrity.finding import (
    ALL_CHECKS,
    CHEAP_CHECKS,
    FINDINGS_DEFAULT,
    MESSAGE_BYTES_MAX,
    AuditEnd,
    AuditOrder,
    Check,
    Finding,
    Tally,
)
from relayfile.store.integrity.seam import Auditor
from relayfile.store.servicers.checks import Checks
from relayfile.v1 import admin_pb2

PROGRESS_S = 2.0
FINDINGS_MAX = 1_000_000
MICROSECONDS = 1_000_000


def audit_order(checks: Checks, request: admin_pb2.AuditRequest) -> AuditOrder:
    """What a request asks for; what it gets wrong is noted in `checks`."""
    if request.workspace_id:
        checks.workspace(request.workspace_id)
    known = {int(check) for check in Check}
    for index, check in enumerate(request.checks):
        checks.require(check in known, f"checks[{index}]", f"is {check}, which is not a check")
    asked = frozenset(Check(check) for check in request.checks if check in known) or CHEAP_CHECKS
    return AuditOrder(
        request.workspace_id,
        ALL_CHECKS if request.strict else asked,
        is_strict=request.strict,
        findings_max=findings_max(checks, request.findings_max),
    )


def scrub_order(checks: Checks, request: admin_pb2.ScrubRequest, bytes_per_second_max: int) -> AuditOrder:
    """As `audit_order`: an audit of nothing but contents, at a rate."""
    if request.workspace_id:
        checks.workspace(request.workspace_id)
    checks.not_negative(request.bytes_per_second_max, "bytes_per_second_max")
    return AuditOrder(
        request.workspace_id,
        (Check.CONTENT,),
        findings_max=findings_max(checks, request.findings_max),
        content_bytes_per_second_max=request.bytes_per_second_max or bytes_per_second_max,
    )


def findings_max(checks: Checks, asked: int) -> int:
    """How many findings end it."""
    checks.not_negative(asked, "findings_max")
    return min(asked, FINDINGS_MAX) or FINDINGS_DEFAULT


async def audit_messages(
    auditor: Auditor, order: AuditOrder, clock: Clock
) -> AsyncGenerator[admin_pb2.AuditResponse, None]:
    """The stream."""
    async with aclosing(_told(auditor, order, clock)) as items:
        async for item, elapsed_s in items:
            message = admin_pb2.AuditResponse()
            if isinstance(item, Finding):
                fill_finding(message.finding, item)
            elif isinstance(item, AuditEnd):
                result, tally = message.result, item.tally
                _fill_end(result, item, elapsed_s)
                result.workspace_count = tally.workspace_count
                result.file_count = tally.file_count
                result.event_count = tally.event_count
                result.change_count = tally.change_count
            else:
                fill_progress(message.progress, item, elapsed_s)
                message.progress.done_count = item.workspace_count
                message.progress.total_count = item.workspace_total
            yield message


async def scrub_messages(
    auditor: Auditor, order: AuditOrder, clock: Clock
) -> AsyncGenerator[admin_pb2.ScrubResponse, None]:
    """The stream."""
    async with aclosing(_told(auditor, order, clock)) as items:
        async for item, elapsed_s in items:
            message = admin_pb2.ScrubResponse()
            if isinstance(item, Finding):
                fill_finding(message.finding, item)
            elif isinstance(item, AuditEnd):
                _fill_end(message.result, item, elapsed_s)
                message.result.content_count = item.tally.content_count
                message.result.content_bytes = item.tally.content_bytes
            else:
                fill_progress(message.progress, item, elapsed_s)
                message.progress.done_count = item.content_count
            yield message


async def _told(
    auditor: Auditor, order: AuditOrder, clock: Clock
) -> AsyncGenerator[tuple[Finding | AuditEnd | Tally, float], None]:
    """Findings, the end, and now and then how far it is; each with the seconds since it began."""
    started = told = clock.monotonic()
    async with aclosing(auditor.run(order)) as items:
        async for item in items:
            now = clock.monotonic()
            if isinstance(item, Tally):
                if now - told < PROGRESS_S:
                    continue
                told = now
            yield item, now - started


def _fill_end(result: admin_pb2.AuditResult | admin_pb2.ScrubResult, end: AuditEnd, elapsed_s: float) -> None:
    result.clean = end.is_clean
    result.finding_count = end.finding_count
    result.truncated = end.is_truncated
    result.duration.FromMicroseconds(round(elapsed_s * MICROSECONDS))


def fill_progress(into: admin_pb2.AdminProgress, tally: Tally, elapsed_s: float) -> None:
    """What every check tells of itself."""
    into.step = f"{tally.workspace_count} of {tally.workspace_total} workspaces"
    into.done_bytes = tally.content_bytes
    into.elapsed.FromMicroseconds(round(elapsed_s * MICROSECONDS))


def fill_finding(into: admin_pb2.IntegrityFinding, finding: Finding) -> None:
    """Fill an empty message."""
    into.check = finding.check.value  # type: ignore[assignment]  # the numbers of the two enums are the same
    into.shard_id = finding.shard_id
    into.workspace_id = finding.workspace_id
    into.subject = finding.subject
    into.reason = finding.reason
    into.message = finding.message.encode()[:MESSAGE_BYTES_MAX].decode(errors="ignore")
