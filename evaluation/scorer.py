"""A reranker's scores: asked of the service in the bulk lane, kept on disk, so that none is asked for twice."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.bars import Bars
from evaluation.counting import Counts, Tally
from evaluation.protocol import AUTHORS_TOP_K, text_to_send
from evaluation.rows import RowFile, Rows, RowStore, digest_of
from evaluation.served import check_unchanged
from evaluation.settings import Settings
from qwen3_client import Client, RerankHit

CALL_PAIRS = AUTHORS_TOP_K  # documents of one call, which share its query: that is then computed once
_FIELDS = [("score", "<f4"), ("num_tokens", "<i4"), ("truncated", "?")]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a document, as mteb has them."""

    query: str
    document: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One query, and its documents by the digest of the pair."""

    query: str
    documents: dict[bytes, str]


class Scorer:
    """Scores as `settings` say. What is under way when the process dies is lost: `concurrency` times 100 pairs."""

    def __init__(
        self, client: Client, settings: Settings, store: RowStore, tally: Tally, bars: Bars, *, concurrency: int
    ) -> None:
        self._client = client
        self._settings = settings
        self._store = store
        self._tally = tally
        self._bars = bars
        self._concurrency = concurrency

    def scores(
        self, pairs: Iterable[Pair], instruction: str | None, *, task: str, num_pairs: int
    ) -> NDArray[np.float32]:
        """(n,) float32 of n pairs, which are read as they are needed. `instruction` None is the model's default."""
        file = self._store.file(task, self._settings.score_type, _FIELDS)
        questions = _Questions(self._settings.protocol.placeholder, instruction)
        fresh, began = Counts(), time.monotonic()
        with self._bars.counting(f"{task}: pairs", num_pairs) as done:
            calls = _calls(questions.asked(pairs, done), file)
            for call, hits in _in_order(lambda call: self._ask(call, instruction), calls, self._concurrency):
                check_unchanged(self._client, self._settings.served)  # an answer does not name its revision
                _append(file, list(call.documents), hits)
                fresh += Counts(num_sent_texts=len(hits), num_sent_tokens=sum(hit.token_count for hit in hits))
        seconds = time.monotonic() - began if fresh.num_sent_texts else 0.0
        rows = file.read(questions.digests)
        self._tally.add(fresh + Counts(seconds=seconds) + _counts(rows, questions.num_placeholders))
        return np.array(rows["score"])

    def _ask(self, call: _Call, instruction: str | None) -> list[RerankHit]:
        return self._client.rerank(
            call.query,
            call.documents.values(),
            model=self._settings.served.model,
            instruction=instruction,
            truncation="end",
            score_type=self._settings.score_type,
            priority="bulk",
        )


class _Questions:
    """What is asked, in order: `digests` of the pairs read so far, and how many were sent with a placeholder."""

    def __init__(self, placeholder: str, instruction: str | None) -> None:
        self._placeholder = placeholder
        self._instruction = instruction
        self.digests: list[bytes] = []
        self.num_placeholders = 0

    def asked(self, pairs: Iterable[Pair], done: Callable[[int], None]) -> Iterator[tuple[bytes, Pair]]:
        """Each pair as it is sent, with its digest."""
        for pair in pairs:
            sent = Pair(text_to_send(pair.query, self._placeholder), text_to_send(pair.document, self._placeholder))
            self.num_placeholders += sent != pair
            self.digests.append(digest_of(self._instruction, sent.query, sent.document))
            yield self.digests[-1], sent
            done(1)


def _calls(questions: Iterable[tuple[bytes, Pair]], file: RowFile) -> Iterator[_Call]:
    """Those that have no answer on disk, as long as the query stays the same in one call of up to CALL_PAIRS."""
    call = _Call(query="", documents={})
    for digest, pair in questions:
        if digest in file:
            continue
        if pair.query != call.query or len(call.documents) == CALL_PAIRS:
            if call.documents:
                yield call
            call = _Call(query=pair.query, documents={})
        call.documents[digest] = pair.document
    if call.documents:
        yield call


def _in_order(
    ask: Callable[[_Call], list[RerankHit]], calls: Iterable[_Call], concurrency: int
) -> Iterator[tuple[_Call, list[RerankHit]]]:
    """Every call with its answer, in order, with up to `concurrency` under way."""
    under_way: deque[tuple[_Call, Future[list[RerankHit]]]] = deque()
    with ThreadPoolExecutor(concurrency) as pool:
        for call in calls:
            if len(under_way) == concurrency:
                first, answer = under_way.popleft()
                yield first, answer.result()
            under_way.append((call, pool.submit(ask, call)))
        for first, answer in under_way:
            yield first, answer.result()


def _append(file: RowFile, digests: Sequence[bytes], hits: Sequence[RerankHit]) -> None:
    by_index = sorted(hits, key=lambda hit: hit.index)
    file.append(
        digests,
        score=[hit.score for hit in by_index],
        num_tokens=[hit.token_count for hit in by_index],
        truncated=[hit.truncated for hit in by_index],
    )


def _counts(rows: Rows, num_placeholders: int) -> Counts:
    return Counts(
        num_texts=len(rows),
        num_tokens=int(rows["num_tokens"].sum(dtype=np.int64)),
        num_truncated=int(rows["truncated"].sum()),
        num_placeholders=num_placeholders,
    )
