"""What a request's head may be, whatever it asks for.

Owns the rule that a head is read alike by everybody. Refuses to parse: that is the protocol's work.
"""

from collections.abc import Sequence
from typing import Final

HEADERS_MAX: Final = 200
"""Headers of one request, however short they are."""
AROUND_A_HEADER_BYTES: Final = len(b": \r\n")


def is_unambiguous(version: str, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether every server reads this head alike: where the body ends, and whom it is for. Names are in lower case.

    What comes through a proxy that reads it differently would be two requests to the one and one to the other. The
    parser itself refuses a Content-Length with a Transfer-Encoding, or twice.
    """
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    if version == "1.1":
        if hosts != 1:
            return False
    elif version != "1.0" or hosts > 1:
        return False
    if b"transfer-encoding" not in names:
        return True
    return version == "1.1" and all(
        value.lower() == b"chunked" for name, value in headers if name == b"transfer-encoding"
    )
