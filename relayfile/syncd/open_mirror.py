"""What work on one mirror needs, opened and at hand: its directory, its journal, the store, and the limits."""

import asyncio
from dataclasses import dataclass, field

from relayfile.clock import Clock
from relayfile.ids import IdSource
from relayfile.settings import SyncdSettings
from relayfile.syncd.delivery import Delivery
from relayfile.syncd.feed import Feed
from relayfile.syncd.ignore import IgnoreRules
from relayfile.syncd.journal import Journal
from relayfile.syncd.rights import Rights
from relayfile.syncd.root import Root
from relayfile.syncd.token_file import TokenFile
from relayfile.syncd.writer import Writer
from relayfile.telemetry import SyncdInstruments, Tracing


@dataclass(frozen=True, slots=True)
class OpenMirror:
    """Used by one task at a time (the holder of the mirror's lock); what is shared between mirrors is said so."""

    remote_paths: tuple[str, ...]
    root: Root
    journal: Journal
    feed: Feed
    clock: Clock
    ids: IdSource
    settings: SyncdSettings
    writer: Writer
    """Shared."""
    tracing: Tracing
    """Shared."""
    instruments: SyncdInstruments
    """Shared."""
    reads: asyncio.Semaphore
    """Shared: read streams to the store that may be open at once."""
    rights: Rights
    delivery: Delivery
    token: TokenFile | None = None
    """The mirror's own; None: the process's is shown."""
    ignore: IgnoreRules = field(default_factory=IgnoreRules)
