"""A summary for programs: one JSON object, or CSV with a line for each score."""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict
from io import StringIO
from typing import Any

from evaluation.summaries.summary import MeanLine, Summary, TaskLine

_COLUMNS = (
    "level",
    "name",
    "type",
    "metric",
    "split",
    "subset",
    "score",
    "against",
    "difference",
    "num_there",
    "num_all",
)


def as_json(summary: Summary) -> str:
    """Unknown scores are null, that of a mean over which something is missing too; `complete` says whether any is."""
    fields = {
        "model": summary.model,
        "revision": summary.revision,
        "described": summary.described,
        "complete": not summary.missing,
        "missing": {task.name: task.missing for task in summary.missing},
        "against": {name: getattr(summary.against, name) for name in ("label", "missing", "remarks")},
        "means": [_fields(line) for line in summary.means],
        "common": _fields(summary.common) if summary.common else None,
        "tasks": [_fields(line) for line in summary.tasks],
        "languages": [_fields(line) for line in summary.languages],
    }
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def as_csv(summary: Summary) -> str:
    """Unknown scores are empty."""
    text = StringIO()
    writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(summary))
    return text.getvalue()


def _rows(summary: Summary) -> Iterator[dict[str, Any]]:
    common = [summary.common] if summary.common else []
    for level, lines in (("mean", [*summary.means, *common]), ("language", summary.languages)):
        yield from ({"level": level} | _fields(line) for line in lines)
    for task in summary.tasks:
        yield {"level": "task"} | _fields(task)
        for subset in task.subsets:
            yield {"level": "subset", "name": task.name, "type": task.type, "metric": task.metric} | asdict(subset)


def _fields(line: MeanLine | TaskLine) -> dict[str, Any]:
    return asdict(line) | {"difference": line.difference}
