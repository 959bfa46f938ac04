"""How fast this worker is, which admission goes by."""

import math

MEMORY_S = 10.0  # what was longer ago counts for little
LEAST_FILL = 0.5  # of a batch; emptier ones tell how much was asked of the worker, not how much it can do


class Pace:
    """Tokens that the worker ends per second when it has enough to do: a mean over full batches, which forgets.

    Times are seconds of time.monotonic().
    """

    def __init__(self) -> None:
        self._last_end = 0.0
        self._tokens = 0.0
        self._seconds = 0.0

    @property
    def tokens_per_s(self) -> int:
        """0 before the first full batch."""
        return round(self._tokens / self._seconds) if self._seconds else 0

    def ended(self, num_tokens: int, *, fill: float, taken_at: float, now: float) -> None:
        """A batch has ended `now` that was taken at `taken_at`, and filled this share of the budget."""
        seconds = max(now - max(self._last_end, taken_at), 1e-6)
        self._last_end = now
        if fill >= LEAST_FILL:
            kept = math.exp(-seconds / MEMORY_S)
            self._tokens = self._tokens * kept + num_tokens
            self._seconds = self._seconds * kept + seconds
