"""A reranker's scores: asked of the service in the bulk lane, kept on disk, so that none is asked for twice."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.bars import Bars
from evaluation.protocol.rules import AUTHORS_TOP_K, sendable
from evaluation.protocol.settings import Settings
from evaluation.records.counting import READ_FIELDS, Counts, Tally
from evaluation.records.rows import RowFile, RowStore, digest_of
from evaluation.service.served import check_revision
from qwen3_client import Client, InvalidRequestError, RerankHit

CALL_PAIRS = AUTHORS_TOP_K  # documents of one call, which share its query: that is then computed once
_FIELDS = [("score", "<f4"), *READ_FIELDS, ("refused", "?")]


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
        questions = _Questions(self._settings, instruction)
        fresh, began, under_way = Counts(), time.monotonic(), set[bytes]()
        with self._bars.counting(f"{task}: pairs", num_pairs) as done:
            calls = _calls(questions.asked(pairs, done), file, under_way)
            for call, hits in _in_order(lambda call: self._ask(call, instruction), calls, self._concurrency):
                _append(file, list(call.documents), hits)
                under_way.difference_update(call.documents)
                num_tokens = sum(hit.token_count for hit in hits or ())
                fresh += Counts(num_sent_texts=len(call.documents), num_sent_tokens=num_tokens)
        seconds = time.monotonic() - began if fresh.num_sent_texts else 0.0
        rows = file.read(questions.digests)
        fresh += Counts(seconds=seconds, num_refused=int(rows["refused"].sum()))
        self._tally.add(fresh + Counts.of(rows, num_placeholders=questions.num_placeholders))
        return np.array(rows["score"])

    def _ask(self, call: _Call, instruction: str | None) -> list[RerankHit] | None:
        """None where the query leaves no room for a document."""
        try:
            hits = self._client.rerank(
                call.query,
                call.documents.values(),
                model=self._settings.served.model,
                instruction=instruction,
                truncation="end",
                score_type=self._settings.score_type,
                priority="bulk",
            )
        except InvalidRequestError as error:
            if [field for field, _ in error.field_violations] != ["query"]:
                raise
            return None
        check_revision(self._settings.served, hits[0].model_revision)
        return hits


class _Questions:
    """What is asked, in order: `digests` of the pairs read so far, and how many were sent with a placeholder."""

    def __init__(self, settings: Settings, instruction: str | None) -> None:
        self._placeholder = settings.protocol.placeholder
        self._instruction = instruction
        self.digests: list[bytes] = []
        self.num_placeholders = 0

    def asked(self, pairs: Iterable[Pair], done: Callable[[int], None]) -> Iterator[tuple[bytes, Pair]]:
        """Each pair as it is sent, with its digest."""
        for pair in pairs:
            query, document = sendable(pair.query), sendable(pair.document)
            self.num_placeholders += not (query and document)
            sent = Pair(query or self._placeholder, document or self._placeholder)
            self.digests.append(digest_of(self._instruction, sent.query, sent.document))
            yield self.digests[-1], sent
            done(1)


def _calls(questions: Iterable[tuple[bytes, Pair]], file: RowFile, under_way: set[bytes]) -> Iterator[_Call]:
    """Those that have no answer on disk, and none to come; what is asked is `under_way` until it is taken out.

    A call has one query, and up to CALL_PAIRS documents.
    """
    call = _Call(query="", documents={})
    for digest, pair in questions:
        if digest in file or digest in under_way:
            continue
        under_way.add(digest)
        if pair.query != call.query or len(call.documents) == CALL_PAIRS:
            if call.documents:
                yield call
            call = _Call(query=pair.query, documents={})
        call.documents[digest] = pair.document
    if call.documents:
        yield call


def _in_order(
    ask: Callable[[_Call], list[RerankHit] | None], calls: Iterable[_Call], concurrency: int
) -> Iterator[tuple[_Call, list[RerankHit] | None]]:
    """Every call with its answer, in order, with up to `concurrency` under way."""
    under_way: deque[tuple[_Call, Future[list[RerankHit] | None]]] = deque()
    with ThreadPoolExecutor(concurrency) as pool:
        for call in calls:
            if len(under_way) == concurrency:
                first, answer = under_way.popleft()
                yield first, answer.result()
            under_way.append((call, pool.submit(ask, call)))
        for first, answer in under_way:
            yield first, answer.result()


def _append(file: RowFile, digests: Sequence[bytes], hits: Sequence[RerankHit] | None) -> None:
    """Documents of a refused query all have one score, as where the joined text is cut until none of them is left."""
    if hits is None:
        file.append(digests, refused=True)
        return
    by_index = sorted(hits, key=lambda hit: hit.index)
    file.append(
        digests,
        score=[hit.score for hit in by_index],
        num_tokens=[hit.token_count for hit in by_index],
        truncated=[hit.truncated for hit in by_index],
    )
