"""`qwen3 rerank`: the documents of one query, or a file of many queries, each with documents of its own."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias, TypedDict

from qwen3_client.cli import progress
from qwen3_client.cli.endings import InputRefusedError, places_named
from qwen3_client.cli.formats import json_line
from qwen3_client.cli.outputs import Output
from qwen3_client.cli.sources import Row, Source, checked_text, json_object, no_such, places_in
from qwen3_client.cli.unfinished import Maker
from qwen3_client.client import Client
from qwen3_client.errors import InvalidRequestError, Qwen3Error
from qwen3_client.options import Priority, ScoreType, Truncation
from qwen3_client.patience import Patience
from qwen3_client.requests import MAX_CALLS_IN_FLIGHT
from qwen3_client.results import RerankHit


class Question(TypedDict):
    """A query and what is to be ranked for it."""

    query: str
    documents: list[str]


Ask: TypeAlias = Callable[[Row[Question]], Future[list[RerankHit]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOptions:
    """Those of Client.rerank that make ranks what they are."""

    model: str
    instruction: str | None
    top_n: int
    truncation: Truncation
    score_type: ScoreType


def rerank_rows(
    client: Client, query: str, rows: list[Row[str]], options: RerankOptions, *, priority: Priority | None
) -> list[RerankHit]:
    """Best first, with their documents; `index` is the place in the input."""
    with places_named(places_in(rows)):
        hits = client.rerank(query, [row.value for row in rows], **asdict(options), priority=priority)
    return [replace(hit, index=rows[hit.index].index, document=rows[hit.index].value) for hit in hits]


def questions(lines: Iterable[Row[str]], *, skip_empty: bool) -> Iterator[Row[Question]]:
    """Lines of JSONL with `query` and `documents`. Raises InputRefusedError at one without."""
    for line in lines:
        if line.value.strip() or not skip_empty:
            yield line.with_value(_question(line))


def rerank_source(
    client: Client,
    source: Source[Question],
    output: Output,
    options: RerankOptions,
    *,
    priority: Priority | None,
    timeout_s: float,
    shows_progress: bool,
) -> None:
    """A line of JSONL for each query, in order; all of them, or those that are not done yet."""
    end = output.pass_over_done(source.rows)
    options_and_lane = asdict(options) | {"priority": priority}
    with (
        progress.bar(is_shown=shows_progress, size=source.size, num_rows=output.num_rows, end=end) as bar,
        _calls() as pool,
    ):

        def ask(row: Row[Question]) -> Future[list[RerankHit]]:
            return pool.submit(_hits, client, options_and_lane, row)

        for row, hits in _answered(ask, source.rows, timeout_s=timeout_s):
            results = [{"index": hit.index, "score": hit.score, "truncated": hit.truncated} for hit in hits]
            maker = Maker(model=hits[0].model, model_revision=hits[0].model_revision)
            output.append(json_line({"index": row.index, "results": results}).encode(), [row], maker)
            bar.advance(1, row.end)
    if not output.num_rows:
        raise InputRefusedError("there is no query in the input")
    output.complete()


def _question(line: Row[str]) -> Question:
    found = json_object(line)
    for field in Question.__annotations__:
        if field not in found:
            raise InputRefusedError(f"{line.place} {no_such('field', field, found)}")
    if not isinstance(found["documents"], list):
        raise InputRefusedError(f"{line.place} has no list of documents")
    query = replace(line, value=found["query"], place=f"{line.place}, query")
    documents = [
        replace(line, value=document, place=f"{line.place}, documents[{number}]")
        for number, document in enumerate(found["documents"])
    ]
    return Question(query=checked_text(query), documents=list(map(checked_text, documents)))


def _hits(client: Client, options: dict[str, Any], row: Row[Question]) -> list[RerankHit]:
    try:
        return client.rerank(row.value["query"], row.value["documents"], **options)
    except InvalidRequestError as error:
        if any(field.startswith(("query", "documents")) for field, _ in error.field_violations):
            raise InputRefusedError(f"{row.place}: {error.message}") from error
        raise


@contextmanager
def _calls() -> Iterator[ThreadPoolExecutor]:
    """Threads that are not waited for: closing the client ends their calls."""
    pool = ThreadPoolExecutor(MAX_CALLS_IN_FLIGHT)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answered(
    ask: Ask, rows: Iterable[Row[Question]], *, timeout_s: float
) -> Iterator[tuple[Row[Question], list[RerankHit]]]:
    """In order; a few are asked at a time."""
    asked: deque[tuple[Row[Question], Future[list[RerankHit]]]] = deque()
    for row in rows:
        asked.append((row, ask(row)))
        if len(asked) == MAX_CALLS_IN_FLIGHT:
            yield _answer(ask, *asked.popleft(), timeout_s=timeout_s)
    while asked:
        yield _answer(ask, *asked.popleft(), timeout_s=timeout_s)


def _answer(
    ask: Ask, row: Row[Question], answer: Future[list[RerankHit]], *, timeout_s: float
) -> tuple[Row[Question], list[RerankHit]]:
    """While the service is away, or a quota used up, it is asked again, as a bulk call of texts does."""
    patience = Patience(timeout_s)
    while True:
        started = time.monotonic()
        try:
            return row, answer.result()
        except Qwen3Error as error:
            patience.spend(time.monotonic() - started)
            time.sleep(patience.wait_s(error))
            answer = ask(row)
