"""How old the oldest change is that could be sent now: what says that ingest itself does not keep up.

For the autoscaler of ingest. What waits for the answer of a node, for a node that is away or slow, or because it is
paused, is not meant: more ingest processes would not send it sooner, and be one more burden for the node.
"""

from relayfile.clock import Clock
from relayfile.ingest.sending.lane import Lane
from relayfile.ingest.sending.node_stream import NodeStream
from relayfile.ingest.sending.traffic import Traffic

MICROSECONDS = 1_000_000


class SendableAge:
    """Looked at once a second; costs O(lanes), which is the workspaces with something pending."""

    def __init__(self, traffic: Traffic, clock: Clock, window_s: float) -> None:
        """A change may be held for `window_s` before anybody could send it: that much of its age is not counted."""
        self._traffic = traffic
        self._clock = clock
        self._window_us = round(window_s * MICROSECONDS)

    def look(self) -> float:
        """Seconds; 0.0 when nothing waits that a node would take at once.

        A node counts only if it has held nothing up since the last look: one that is slow gives credit now and then.
        """
        taking: dict[NodeStream, bool] = {}
        oldest_us = 0
        for lane in self._traffic.lanes.values():
            if lane.in_flight or not (lane.has_queued or lane.has_unread):
                continue
            stream = self._traffic.stream(lane)
            if stream not in taking:
                taking[stream] = stream.took_all()
            if taking[stream]:
                since_us = self._oldest_us(lane)
                if since_us and (not oldest_us or since_us < oldest_us):
                    oldest_us = since_us
        if not oldest_us:
            return 0.0
        return max(0, self._clock.now_us() - oldest_us - self._window_us) / MICROSECONDS

    def _oldest_us(self, lane: Lane) -> int:
        """Receive time of the oldest pending change of a lane that is not paused; 0: none."""
        is_paused = self._traffic.pauses.is_paused
        times = [
            lane.ages[provider].oldest_us
            for provider, count in lane.pending.items()
            if count and not is_paused(lane.workspace_id, provider)
        ]
        return min(times, default=0)
