"""The probes of a container, as a kubelet makes them: startup first, then readiness and liveness side by side."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc


@dataclass(frozen=True, slots=True)
class Probe:
    """One of them; what the manifest leaves out is Kubernetes' default."""

    address: str
    service: str
    period_s: float
    timeout_s: float
    failures_max: int

    @classmethod
    def of(cls, said: Mapping[str, Any], pod_address: str) -> Self:
        """Of a manifest; only gRPC probes are known."""
        asked = said["grpc"]
        return cls(
            address=f"{pod_address}:{asked['port']}",
            service=asked.get("service", ""),
            period_s=said.get("periodSeconds", 10),
            timeout_s=said.get("timeoutSeconds", 1),
            failures_max=said.get("failureThreshold", 3),
        )

    async def succeeds(self) -> bool:
        """Ask once, on a connection of its own."""
        async with aio.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=self.service)
            try:
                answer = await stub.Check(request, timeout=self.timeout_s)
            except aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    raise LookupError(f"{self.address} has no health of {self.service!r}") from error
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def once(self) -> bool:
        """Return at the first success; False when as many in a row failed as are allowed."""
        for _ in range(self.failures_max):
            if await self.succeeds():
                return True
            await asyncio.sleep(self.period_s)
        return False

    async def watch(self, told: Callable[[bool], None]) -> None:
        """Until cancelled: tell the first result that counts, and each that is another one."""
        known: bool | None = None
        failures = 0
        while True:
            if await self.succeeds():
                failures, now = 0, True
            else:
                failures += 1
                now = False if known is None or failures >= self.failures_max else known
            if now is not known:
                known = now
                told(now)
            await asyncio.sleep(self.period_s)
