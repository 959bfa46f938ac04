"""Whether a dead child is started again, and when. Decides only: no clock, no process."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """Back-off doubles with every death, and starts anew after a life longer than the window."""

    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    max_deaths: int = 5
    window_s: float = 600.0

    def delay_s(self, deaths_s: Sequence[float]) -> float | None:
        """Seconds to wait after the last of `deaths_s` (times, oldest first); None: give up."""
        now_s = deaths_s[-1]
        if sum(now_s - death_s <= self.window_s for death_s in deaths_s) >= self.max_deaths:
            return None
        return min(self.first_delay_s * 2.0 ** (self._streak(deaths_s) - 1), self.max_delay_s)

    def _streak(self, deaths_s: Sequence[float]) -> int:
        """How many of the last deaths came within a window of the one before."""
        streak = 1
        for death_s, earlier_s in pairwise(reversed(deaths_s)):
            if death_s - earlier_s > self.window_s:
                break
            streak += 1
        return streak
