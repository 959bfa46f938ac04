"""`qwen3 embed`: texts go to the service as they are read, vectors to the output as they come, in order."""

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from qwen3_client.cli import progress
from qwen3_client.cli.endings import InputRefusedError, places_named
from qwen3_client.cli.formats import VectorFormat
from qwen3_client.cli.outputs import Output
from qwen3_client.cli.sources import Row, Source
from qwen3_client.cli.unfinished import Maker
from qwen3_client.client import Client
from qwen3_client.options import Encoding, InputType, Priority, Truncation


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """Those of Client.embed_stream that make vectors what they are."""

    model: str
    input_type: InputType | None
    instruction: str | None
    dimensions: int
    normalize: bool
    encoding: Encoding
    truncation: Truncation


def embed_source(
    client: Client,
    source: Source[str],
    output: Output,
    vectors: VectorFormat,
    options: EmbedOptions,
    *,
    priority: Priority | None,
    shows_progress: bool,
) -> None:
    """All of it, or what is not done yet."""
    end = output.pass_over_done(source.rows)
    under_way = UnderWay(source.rows)
    with (
        progress.bar(is_shown=shows_progress, size=source.size, num_rows=output.num_rows, end=end) as bar,
        places_named(under_way.place_of),
        closing(client.embed_stream(under_way.texts(), **asdict(options), priority=priority)) as results,
    ):
        for result in results:
            rows = under_way.taken(len(result.vectors))
            head = b"" if output.num_rows else vectors.head(result)
            data = vectors.rows([row.index for row in rows], result)
            output.append(head + data, rows, Maker(model=result.model, model_revision=result.model_revision))
            bar.advance(len(rows), rows[-1].end)
    if not output.num_rows:
        raise InputRefusedError("there is no text in the input")
    output.complete(vectors.completed)


class UnderWay:
    """Rows whose texts the client took, and whose vectors it has not given yet: a few chunks."""

    def __init__(self, rows: Iterator[Row[str]]) -> None:
        self._rows = rows
        self._under_way: deque[Row[str]] = deque()
        self._num_taken = 0

    def texts(self) -> Iterator[str]:
        """Those of all rows."""
        for row in self._rows:
            self._under_way.append(row)
            yield row.value

    def taken(self, num_rows: int) -> list[Row[Any]]:
        """The next rows, which have their vectors."""
        self._num_taken += num_rows
        return [self._under_way.popleft() for _ in range(num_rows)]

    def place_of(self, number: int) -> str:
        """Of the text that the service counts so."""
        return self._under_way[number - self._num_taken].place
