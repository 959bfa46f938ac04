"""What one gateway knows of a tenant's quota without asking Redis. Times are in seconds of the event loop's clock."""

import asyncio
import math

from jobqueue.quotas import Limit, Quota, Refusal

MOST_SPREAD_S = 30.0  # between the first and the last of those who are told to come back
LEAST_PACE_S = 0.001
FIRST_MEAN_S = 0.1  # that calls take, before one has ended
NEW_SHARE = 1 / 8  # of the last call in the mean of how long they take


class Turns:
    """When those who are refused may come back: told the same, they would all come back together.

    No room is kept for them: who is told and does not come keeps nobody out.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def take(self, first: float, pace_s: float) -> float:
        """The next one: at `first` or later, and `pace_s` after the one before; at `first` again after a while."""
        turn = max(self._next, first)
        following = turn + pace_s
        self._next = following if following < first + MOST_SPREAD_S else first
        return turn


class Tenant:
    """Its calls that are in flight in this gateway, how long such calls take, and what Redis has refused."""

    def __init__(self, name: str, quota: Quota) -> None:
        self.name = name
        self.quota = quota
        self._num_in_flight = 0
        self._mean_s = FIRST_MEAN_S
        self._closed_until = {Limit.REQUESTS: 0.0, Limit.TOKENS: 0.0}
        self._paces_s = {Limit.REQUESTS: 0.0, Limit.TOKENS: 0.0}
        self._turns = {limit: Turns() for limit in Limit}

    def limit_met(self, *, needs_tokens: bool) -> Limit | None:
        """Where Redis is sure to refuse a call now, the limit that it meets."""
        now = _now()
        for limit, until in self._closed_until.items():
            if now < until and (needs_tokens or limit is not Limit.TOKENS):
                return limit
        most = self.quota.max_in_flight
        return Limit.IN_FLIGHT if most is not None and self._num_in_flight >= most else None

    def note(self, refusal: Refusal, num_tokens: int, asked_at: float) -> None:
        """Redis has refused a call. The time that it names began at `asked_at` at the earliest."""
        limit = refusal.limit
        if limit is not Limit.IN_FLIGHT:
            self._closed_until[limit] = asked_at + refusal.retry_s
            self._paces_s[limit] = (num_tokens if limit is Limit.TOKENS else 1) / self.quota.of(limit)

    def retry_s(self, limit: Limit) -> float:
        """What the next one that is refused is told, in whole milliseconds.

        Turns follow each other at the pace at which calls are let in: that of the limit per second, if they are like
        the last one that Redis refused; or that at which they end, if elsewhere they take as long as here.
        """
        now = _now()
        if limit is Limit.IN_FLIGHT:
            pace_s = max(self._mean_s / self.quota.of(limit), LEAST_PACE_S)
            first = now + pace_s
        else:
            pace_s, first = self._paces_s[limit], self._closed_until[limit]
        wait_s = self._turns[limit].take(first, pace_s) - now
        return max(math.ceil(wait_s * 1000), 1) / 1000

    def begin(self) -> float:
        """A call was let in; what `end` wants to know."""
        self._num_in_flight += 1
        return _now()

    def end(self, begun_at: float) -> None:
        self._num_in_flight -= 1
        self._mean_s += NEW_SHARE * (_now() - begun_at - self._mean_s)


def _now() -> float:
    return asyncio.get_running_loop().time()
