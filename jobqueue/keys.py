"""Every name in Redis, with its type and lifetime.

A queue is `MODEL@REVISION`. Its keys share one hash tag, so that in a cluster they share a slot and a script may
touch them all. Names with a model's id in them are safe: an id has no braces (`check_queue_name`).
"""

import re
from dataclasses import dataclass

from jobqueue.lanes import Lane

GROUP = "workers"  # the consumer group of both lanes
ORPHANS = "orphans"  # the consumer that holds what dead workers left

MODELS = "models"  # hash, for ever: queue -> announcement (JSON); stale fields are removed by gateways
TOKENIZER_TTL_S = 24 * 3600
REPLIES_TTL_S = 15
DEAD_TTL_S = 7 * 24 * 3600
DEAD_MAX_ENTRIES = 1000

_QUEUE_NAME = re.compile(r"[\w.\-/:+]{1,200}@[\w.\-]{1,64}", re.ASCII)


def tokenizer_key(digest: str) -> str:
    """String, 24 h, refreshed by workers: the bytes of a tokenizer.json."""
    return f"tokenizer:{digest}"


def quota_keys(tenant: str) -> tuple[bytes, bytes]:
    """What all gateways know of a tenant's use, as `scripts/spend.lua` takes it.

    A hash, until all is paid off: `requests` and `tokens` spent and not yet paid off, as of `at_us`, server time. And
    a sorted set, until the last of them: call in flight -> its deadline in server ms.
    """
    tag = f"{{quota:{tenant}}}".encode()
    return tag + b":spent", tag + b":in_flight"


def check_queue_name(name: str) -> None:
    """Raises ValueError unless `name` is MODEL@REVISION in characters that are safe in a key."""
    if not _QUEUE_NAME.fullmatch(name):
        raise ValueError(f"queue name {name!r}: MODEL@REVISION in letters, digits and . _ - / : + only")


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue."""

    queue: str

    def __post_init__(self) -> None:
        check_queue_name(self.queue)

    def lane(self, lane: str) -> str:
        """Stream, for ever; entries are deleted when they end, so XLEN is what waits and runs."""
        return self._key(lane)

    def of_script(self, gateway: str | None = None) -> list[str]:
        """All keys, as scripts take them (`scripts/common.lua`), with a gateway's reply stream where they have one."""
        lanes = [self.lane(lane.key) for lane in Lane]
        state = [self.depth, self.tenants, self.control, self.rates, self.workers, self.loading, self.dead]
        return [*lanes, *state, *([] if gateway is None else [self.replies(gateway)])]

    @property
    def depth(self) -> str:
        """Hash, for ever: `<lane>_tokens` and `<lane>_jobs` admitted and not ended."""
        return self._key("depth")

    @property
    def tenants(self) -> str:
        """Hash, for ever: `<lane>:<tenant>` -> tokens that the tenant holds there; fields at 0 are removed."""
        return self._key("tenants")

    @property
    def control(self) -> str:
        """Hash, for ever: what the queue goes by.

        `paused` and `draining` where an operator said so; `tokens_per_s` of all live workers together;
        `hi_retry_ms` and `lo_retry_ms`, for when the next one to be refused is told to come back.
        """
        return self._key("control")

    @property
    def rates(self) -> str:
        """Hash, for ever: consumer -> tokens it ends per second when busy; removed with its lease."""
        return self._key("rates")

    @property
    def workers(self) -> str:
        """Sorted set, for ever: live consumer -> lease expiry in server ms."""
        return self._key("workers")

    @property
    def loading(self) -> str:
        """Sorted set, for ever: worker that loads its weights -> lease expiry in server ms."""
        return self._key("loading")

    @property
    def dead(self) -> str:
        """Stream, 7 days, about 1,000 entries: jobs that failed their worker three times, with the reason."""
        return self._key("dead")

    @property
    def of_cache(self) -> list[str]:
        """What the cache of answers consists of, as `scripts/cache.lua` takes it; each for the lifetime of an answer.

        Hash: digest -> expiry in server ms, and the answer. Sorted set: digest -> last use in server ms. String: the
        bytes that all of them count for.
        """
        return [self._key("cache"), self._key("cache_uses"), self._key("cache_bytes")]

    def replies(self, gateway: str) -> str:
        """Stream, 15 s, refreshed by its gateway: job id -> answer. Its existence says the gateway lives."""
        return self._key(f"r:{gateway}")

    def _key(self, suffix: str) -> str:
        return f"{{q:{self.queue}}}:{suffix}"
