"""What `RELAYFILE_SPOOL_MODE` chooses between: an intake, with what keeps it going and what it says of itself."""

from typing import Protocol

from relayfile.ingest.intake import Intake, PromptIntake
from relayfile.ingest.memory import Memory
from relayfile.ingest.sending.router import Router
from relayfile.ingest.sending.traffic import Traffic
from relayfile.ingest.status.meter import Figures


class Mode(Intake, Protocol):
    """`pipeline.Pipeline` (disk) or `through.Through`."""

    @property
    def router(self) -> Router:
        """Where shards are."""
        ...

    @property
    def prompt(self) -> PromptIntake | None:
        """What takes webhooks the short way, if anything does."""
        ...

    @property
    def traffic(self) -> Traffic:
        """What is on its way to the shards."""
        ...

    @property
    def ingest_id(self) -> str:
        """The name of this process, the same over restarts."""
        ...

    def figures(self) -> Figures:
        """For metrics and status."""
        ...

    @property
    def memory(self) -> Memory:
        """What it knows from before it started."""
        ...

    async def run(self) -> None:
        """Until cancelled, or until the process must end."""
        ...

    async def drain(self) -> None:
        """Accept nothing more, and return when everything has its outcome."""
        ...

    async def close(self) -> int:
        """After `run` was cancelled; returns how many accepted changes are left for the next start."""
        ...
