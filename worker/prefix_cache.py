"""Keys and values of hot prefixes, kept from batch to batch: an instruction, a system prompt, a long rerank query.

The weights do not change while a process lives, so nothing is ever invalidated: a prefix is the same for the whole life
of the cache, and the least recently used ones make room. What is kept is decided on ids alone: a beginning on which the
prefixes of two batches agree.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice

import torch
from torch import Tensor

from jobqueue.messages import TokenIds
from worker.sharing import MIN_SHARED_TOKENS, agreement

_MAX_RECENT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixKeysValues:
    """What every layer computed for the tokens `ids` at the start of a sequence.

    `keys` (rotated) and `values` are (layers, tokens, kv_heads, head_dim), of the model's dtype and device.
    """

    ids: TokenIds
    keys: Tensor
    values: Tensor

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class PrefixRecorder:
    """Gathers the keys and values of chosen rows, layer by layer, while a batch is computed."""

    def __init__(self, prefixes: Sequence[TokenIds], rows: Sequence[Tensor], *, num_layers: int) -> None:
        self._prefixes = prefixes
        self._rows = rows
        self._num_layers = num_layers
        self._layer = 0
        self._kept: list[PrefixKeysValues] = []

    def record(self, keys: Tensor, values: Tensor) -> None:
        """The next layer's keys and values of all rows, those taken from the cache included."""
        if not self._kept:
            self._kept = [self._blank(ids, keys) for ids in self._prefixes]
        for kept, rows in zip(self._kept, self._rows, strict=True):
            torch.index_select(keys, 0, rows, out=kept.keys[self._layer])
            torch.index_select(values, 0, rows, out=kept.values[self._layer])
        self._layer += 1

    def recorded(self) -> Sequence[PrefixKeysValues]:
        return self._kept

    def _blank(self, ids: TokenIds, like: Tensor) -> PrefixKeysValues:
        shape = (self._num_layers, len(ids), *like.shape[1:])
        return PrefixKeysValues(ids=ids, keys=like.new_empty(shape), values=like.new_empty(shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixCacheStats:
    """Since the start: prefixes looked up and found or not, and those let go for others; and what is kept now."""

    num_hits: int = 0
    num_misses: int = 0
    num_evicted: int = 0
    num_bytes: int = 0


class PrefixCache:
    """Keys and values of at most `max_bytes`, at `token_bytes` a token, for one thread at a time."""

    def __init__(self, *, max_bytes: int, token_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_tokens = max_bytes // token_bytes
        self._kept: OrderedDict[bytes, PrefixKeysValues] = OrderedDict()
        self._recent: OrderedDict[bytes, TokenIds] = OrderedDict()
        self.stats = PrefixCacheStats()

    def find(self, prefixes: Iterable[TokenIds]) -> list[PrefixKeysValues]:
        """The longest kept beginning of each prefix, each once; they count as used now."""
        found = [(prefix, self._longest(prefix)) for prefix in _distinct(prefixes)]
        hits = {key: self._kept[key] for _, key in found if key is not None}
        for key in hits:
            self._kept.move_to_end(key)
        num_hits = sum(key is not None for _, key in found)
        self._count(num_hits=num_hits, num_misses=len(found) - num_hits)
        return list(hits.values())

    def worth_keeping(self, prefixes: Iterable[TokenIds]) -> list[TokenIds]:
        """Beginnings that an earlier batch's prefixes had too, and that reach further than what is kept.

        All of them fit in the cache together.
        """
        distinct = _distinct(prefixes)
        recent = sorted(self._recent)
        wanted = [prefix[: self._agreement(prefix, recent)] for prefix in distinct]
        self._remember(distinct)
        extending = [ids for ids in _distinct(wanted) if self._extends(ids)]
        reached = accumulate(map(len, extending))
        return [ids for ids, num_tokens in zip(extending, reached, strict=True) if num_tokens <= self._max_tokens]

    def keep(self, prefix: PrefixKeysValues) -> None:
        """Keep it, and let go of the least recently used ones until all fit."""
        self._kept[prefix.ids.tobytes()] = prefix
        self._count(num_bytes=prefix.num_bytes)
        while self.stats.num_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._count(num_bytes=-oldest.num_bytes, num_evicted=1)

    def clear(self) -> None:
        """Let go of everything, for memory that is needed elsewhere."""
        self._kept.clear()
        self._count(num_bytes=-self.stats.num_bytes)

    def _count(self, **changes: int) -> None:
        self.stats = replace(
            self.stats, **{name: getattr(self.stats, name) + change for name, change in changes.items()}
        )

    def _longest(self, prefix: TokenIds) -> bytes | None:
        lengths = {len(kept.ids) for kept in self._kept.values() if len(kept.ids) <= len(prefix)}
        beginnings = (prefix[:length].tobytes() for length in sorted(lengths, reverse=True))
        return next((key for key in beginnings if key in self._kept), None)

    def _extends(self, ids: TokenIds) -> bool:
        kept = self._longest(ids)
        num_kept = 0 if kept is None else len(self._kept[kept].ids)
        return len(ids) >= num_kept + MIN_SHARED_TOKENS

    def _agreement(self, prefix: TokenIds, recent: Sequence[bytes]) -> int:
        """Most tokens that `prefix` and one of the sorted recent ones begin with together: a neighbour has them."""
        place = bisect_left(recent, prefix.tobytes())
        neighbours = recent[max(place - 1, 0) : place + 1]
        return max((agreement(prefix, self._recent[other]) for other in neighbours), default=0)

    def _remember(self, prefixes: Iterable[TokenIds]) -> None:
        for prefix in prefixes:
            self._recent[prefix.tobytes()] = prefix
            self._recent.move_to_end(prefix.tobytes())
        for oldest in list(islice(self._recent, max(len(self._recent) - _MAX_RECENT, 0))):
            del self._recent[oldest]


def _distinct(prefixes: Iterable[TokenIds]) -> list[TokenIds]:
    return list({prefix.tobytes(): prefix for prefix in prefixes if prefix}.values())
