"""An OpenTelemetry collector of another process: takes spans over OTLP and writes each as a line of JSON.

`python -m tests.support.otlp_receiver FOLDER` serves on a free port of loopback, writes it to `FOLDER/address`, and
appends to `FOLDER/spans.jsonl`. It ends with its standard input.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.support.span_tree import ReceivedSpan

KINDS = ("", "internal", "server", "client", "producer", "consumer")


class _Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, lines: TextIO) -> None:
        self._lines = lines

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for group in request.resource_spans:
            service = str(_values(group.resource.attributes)["service.name"])
            for scope in group.scope_spans:
                self._lines.writelines(f"{json.dumps(_shown(service, span))}\n" for span in scope.spans)
        self._lines.flush()
        return trace_service_pb2.ExportTraceServiceResponse()


def _shown(service: str, span: trace_pb2.Span) -> dict[str, object]:
    return ReceivedSpan(
        service=service,
        name=span.name,
        kind=KINDS[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes=_values(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
    ).to_json()


def _values(attributes: Iterable[common_pb2.KeyValue]) -> dict[str, str | int | float | bool]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value") for each in attributes}


class OtlpReceiver:
    """The process, as its test sees it."""

    def __init__(self, folder: Path, address: str) -> None:
        self.address = address
        self._lines = folder / "spans.jsonl"

    def spans(self) -> list[ReceivedSpan]:
        """Everything that has arrived."""
        if not self._lines.is_file():
            return []
        whole = self._lines.read_text().rpartition("\n")[0]
        return [ReceivedSpan.from_json(json.loads(line)) for line in whole.splitlines()]


@asynccontextmanager
async def receiving(folder: Path) -> AsyncIterator[OtlpReceiver]:
    """A receiver that runs."""
    folder.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.otlp_receiver", str(folder), stdin=asyncio.subprocess.PIPE
    )
    try:
        address = folder / "address"
        async with asyncio.timeout(30):
            while not address.is_file():
                assert process.returncode is None, "the receiver did not start"
                await asyncio.sleep(0.02)
        yield OtlpReceiver(folder, address.read_text())
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def main(folder: Path) -> None:
    with (folder / "spans.jsonl").open("a") as lines:
        server = grpc.server(ThreadPoolExecutor(max_workers=1))
        add: Callable[..., None] = trace_service_pb2_grpc.add_TraceServiceServicer_to_server  # is not typed
        add(_Receiver(lines), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        draft = folder / "address.draft"
        draft.write_text(f"127.0.0.1:{port}")
        draft.rename(folder / "address")
        sys.stdin.read()
        server.stop(1).wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
