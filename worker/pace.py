"""How fast this worker is, which admission goes by."""

import math

MEMORY_S = 10.0  # what was longer ago counts for little


class Pace:
    """Tokens that the worker ends per second when it has enough to do. Times are seconds of time.monotonic().

    Batches behind which another one waited tell it, by a mean that forgets. Before there was such a batch, the fastest
    of the others stands in: they do not fill the device, so it is no more than what the worker can do.
    """

    def __init__(self) -> None:
        self._last_end = 0.0
        self._tokens = 0.0
        self._seconds = 0.0
        self._at_least = 0.0

    @property
    def tokens_per_s(self) -> int:
        """0 before the first batch."""
        return round(self._tokens / self._seconds if self._seconds else self._at_least)

    def ended(self, num_tokens: int, *, taken_at: float, now: float, another_waits: bool) -> None:
        """A batch has ended `now` that was taken at `taken_at`."""
        seconds = max(now - max(self._last_end, taken_at), 1e-6)
        self._last_end = now
        if another_waits:
            kept = math.exp(-seconds / MEMORY_S)
            self._tokens = self._tokens * kept + num_tokens
            self._seconds = self._seconds * kept + seconds
        else:
            self._at_least = max(self._at_least, num_tokens / seconds)
