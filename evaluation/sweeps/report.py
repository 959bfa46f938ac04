"""A sweep to be read: a table, and the same numbers as JSON and CSV."""

import csv
import json
from collections.abc import Sequence
from io import StringIO
from typing import Any

from evaluation.sweeps.sweep import SweepRow
from evaluation.text_tables import Table

_UNKNOWN = "-"


def sweep_table(rows: Sequence[SweepRow]) -> Table:
    """A line for each row. Scores are times 100, and the last column is what is lost or won against the first row."""
    columns = (*names(rows[0]), "bytes/vector", "tokens/s", "score", "difference")
    cells = tuple((*names(row).values(), *_numbers(row, rows[0])) for row in rows)
    return Table(num_names=len(names(rows[0])), columns=columns, rows=cells)


def as_json(rows: Sequence[SweepRow]) -> str:
    """A list of objects; scores are 0 to 1, null where a task failed."""
    return (
        json.dumps([_fields(row) | {"scores": row.scores, "failures": row.failures} for row in rows], indent=2) + "\n"
    )


def as_csv(rows: Sequence[SweepRow]) -> str:
    """A line for each row, with a column for each task."""
    tasks = list(dict.fromkeys(task for row in rows for task in (*row.scores, *row.failures)))
    text = StringIO()
    writer = csv.DictWriter(text, [*_fields(rows[0]), *tasks], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_fields(row) | row.scores for row in rows)
    return text.getvalue()


def names(row: SweepRow) -> dict[str, str]:
    """The columns that say which row it is."""
    return {
        "model": row.served.model,
        "dtype": row.served.dtype,
        "engine": row.served.engine,
        "prefix cache": _switch(on=row.served.prefix_cache),
        "instructions": _switch(on=row.instructions),
        "dimensions": str(row.choice.dimensions),
        "encoding": row.choice.encoding,
        "rescore": str(row.choice.look),
    }


def _numbers(row: SweepRow, first: SweepRow) -> tuple[str, ...]:
    difference = None if row.score is None or first.score is None else row.score - first.score
    return (
        f"{row.bytes_per_vector:,}",
        f"{row.tokens_per_s:,.0f}",
        _score(row.score),
        _score(difference, sign="+"),
    )


def _score(score: float | None, sign: str = "") -> str:
    return _UNKNOWN if score is None else f"{score * 100:{sign}.2f}"


def _fields(row: SweepRow) -> dict[str, Any]:
    return {
        "model": row.served.model,
        "revision": row.served.revision,
        "dtype": row.served.dtype,
        "engine": row.served.engine,
        "prefix_cache": row.served.prefix_cache,
        "instructions": row.instructions,
        "dimensions": row.choice.dimensions,
        "encoding": row.choice.encoding,
        "float_queries": row.choice.look.float_queries,
        "rescore": row.choice.look.rescore,
        "bytes_per_vector": row.bytes_per_vector,
        "tokens_per_s": row.tokens_per_s,
        "score": row.score,
    }


def _switch(*, on: bool) -> str:
    return "on" if on else "off"
