"""The cluster's name service: answers for Services and for the pods behind headless ones, over UDP.

Owns the messages and the search list. Refuses to know which names there are: it is handed what looks them up.
"""

import asyncio
import ipaddress
import struct
from collections.abc import Callable, Sequence
from typing import cast

PORT = 53
DOMAIN = "svc.cluster.local"
_HEAD = struct.Struct("!6H")
_QUESTION_END = struct.Struct("!2H")
_ANSWER = struct.Struct("!3HIH4s")
_IS_ANSWER, _NO_SUCH_NAME = 0x8580, 3
_A, _IN, _POINTER_TO_QUESTION = 1, 1, 0xC00C

LookUp = Callable[[str], Sequence[str] | None]
"""The addresses of a name without the domain, as `service` or `pod.service`; None: there is no such name."""


def resolver_file(server: str, namespace: str) -> str:
    """What a kubelet writes as a pod's /etc/resolv.conf."""
    search = f"{namespace}.{DOMAIN} {DOMAIN} cluster.local"
    return f"nameserver {server}\nsearch {search}\noptions ndots:5\n"


def answer_to(query: bytes, namespace: str, look_up: LookUp) -> bytes:
    """The answer to one question, as CoreDNS gives it: the addresses, none (of another kind), or no such name."""
    number, flags, *_ = _HEAD.unpack_from(query)
    labels, at = [], _HEAD.size
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode("ascii").lower())
        at += 1 + size
    kind, _ = _QUESTION_END.unpack_from(query, at + 1)
    question = query[_HEAD.size : at + 1 + _QUESTION_END.size]
    name, ours = ".".join(labels), f".{namespace}.{DOMAIN}"
    found = look_up(name.removesuffix(ours)) if name.endswith(ours) else None
    addresses = found if found and kind == _A else ()
    head = _HEAD.pack(
        number, _IS_ANSWER | (flags & 0x0100) | (_NO_SUCH_NAME if found is None else 0), 1, len(addresses), 0, 0
    )
    packed = (ipaddress.IPv4Address(each).packed for each in addresses)
    return head + question + b"".join(_ANSWER.pack(_POINTER_TO_QUESTION, _A, _IN, 0, 4, each) for each in packed)


class NameServer(asyncio.DatagramProtocol):
    """See the module; `start` it, `close` it."""

    def __init__(self, address: str, namespace: str, look_up: LookUp) -> None:
        self.address = address
        self._namespace = namespace
        self._look_up = look_up
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        """Answer from now on. `OSError` where the port may not be had."""
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, (self.address, PORT))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is none by its type

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(answer_to(data, self._namespace, self._look_up), addr)

    def close(self) -> None:
        """Answer no more."""
        if self._transport is not None:
            self._transport.close()
