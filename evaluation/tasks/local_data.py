"""Reads a retrieval set from a local folder: a corpus, queries and which documents answer which, in JSONL or TSV.

Each part is a file, or a folder with a file for each split, as in RAR-b, BEIR and mteb; a set of several subsets has
the subset's name before each part:

    corpus.jsonl      corpus.tsv      corpus/test.jsonl      de-corpus.jsonl
    queries.jsonl     queries.tsv     queries/test.jsonl     de-queries.jsonl
    qrels.tsv         qrels.jsonl     qrels/test.tsv         de-qrels/test.tsv

A corpus has `_id` (or `id`), `text` and where it likes `title`, queries have `_id` (or `id`) and `text`, qrels have
`query-id`, `corpus-id` and `score`. A TSV file names its columns in the first line.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

DEFAULT_SUBSET = "default"
DEFAULT_SPLIT = "test"
_SUFFIXES = (".jsonl", ".tsv")

Relevance: TypeAlias = dict[str, dict[str, int]]  # query id to document id to grade


class DataError(ValueError):
    """The user's: says which file, and where it can, which line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalSet:
    """One split of one subset. Queries that no document answers are left out, as mteb does.

    `corpus` rows have id, title and text, `queries` rows id and text.
    """

    corpus: list[dict[str, str]]
    queries: list[dict[str, str]]
    relevance: Relevance


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A line that was read; `place` is FILE:LINE."""

    fields: Mapping[str, Any]
    place: str


def subsets_in(folder: Path) -> list[str]:
    """The names of the subsets, "default" for files without one. Raises DataError for a folder without qrels."""
    names = sorted({_subset_of(path) for path in folder.iterdir() if _stem(path).rsplit("-", 1)[-1] == "qrels"})
    if not names:
        raise DataError(f"{folder}: has no qrels.tsv, qrels.jsonl or folder qrels")
    return names


def splits_in(folder: Path, subset: str) -> list[str]:
    """The splits that have qrels."""
    part = _part(folder, subset, "qrels")
    return sorted(path.stem for path in _tables(part)) if part.is_dir() else [DEFAULT_SPLIT]


def files_of(folder: Path, subset: str, split: str) -> list[Path]:
    """Corpus, queries and qrels of one split. Raises DataError where one is missing."""
    return [_split_file(_part(folder, subset, name), split) for name in ("corpus", "queries", "qrels")]


def read_set(folder: Path, subset: str, split: str) -> RetrievalSet:
    """All of one split. Raises DataError for what is missing, malformed, given twice or refers to nothing."""
    corpus_file, queries_file, qrels_file = files_of(folder, subset, split)
    corpus = _texts(corpus_file, _document)
    queries = _texts(queries_file, _query)
    relevance = _relevance(qrels_file, queries=queries, documents=corpus)
    return RetrievalSet(
        corpus=list(corpus.values()),
        queries=[query for query_id, query in queries.items() if query_id in relevance],
        relevance=relevance,
    )


def digest(files: list[Path], *also: str) -> str:
    """16 hexadecimal digits that differ where a file or one of `also` does."""
    total = hashlib.sha256(json.dumps(also).encode())
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def _part(folder: Path, subset: str, name: str) -> Path:
    name = name if subset == DEFAULT_SUBSET else f"{subset}-{name}"
    found = [path for path in _tables(folder) if path.stem == name]
    found += [folder / name] if (folder / name).is_dir() else []
    if len(found) != 1:
        raise DataError(f"{folder}: needs one of {name}.jsonl, {name}.tsv and folder {name}, has {len(found)}")
    return found[0]


def _split_file(part: Path, split: str) -> Path:
    """The file of the split, or the only one, which then serves all splits."""
    if not part.is_dir():
        return part
    files = _tables(part)
    of_split = [path for path in files if path.stem == split] or files
    if len(of_split) != 1:
        raise DataError(f"{part}: needs one file {split}.jsonl or {split}.tsv, has {len(of_split)}")
    return of_split[0]


def _tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)


def _stem(path: Path) -> str:
    return path.stem if path.suffix in _SUFFIXES else path.name


def _subset_of(qrels: Path) -> str:
    return _stem(qrels).removesuffix("qrels").removesuffix("-") or DEFAULT_SUBSET


def _texts(file: Path, parse: Callable[[_Row], dict[str, str]]) -> dict[str, dict[str, str]]:
    """By id, in the order of the file."""
    texts: dict[str, dict[str, str]] = {}
    for row in _rows(file):
        text = parse(row)
        if text["id"] in texts:
            raise DataError(f"{row.place}: id {text['id']!r} is there already")
        texts[text["id"]] = text
    if not texts:
        raise DataError(f"{file}: is empty")
    return texts


def _document(row: _Row) -> dict[str, str]:
    title = row.fields.get("title") or ""
    if not isinstance(title, str):
        raise DataError(f"{row.place}: title must be a string")
    return {"id": _id(row, "_id", "id"), "title": title, "text": _text(row)}


def _query(row: _Row) -> dict[str, str]:
    return {"id": _id(row, "_id", "id"), "text": _text(row)}


def _relevance(file: Path, *, queries: Mapping[str, object], documents: Mapping[str, object]) -> Relevance:
    relevance: Relevance = {}
    for row in _rows(file):
        query = _known(row, "query-id", queries)
        document = _known(row, "corpus-id", documents)
        if document in relevance.setdefault(query, {}):
            raise DataError(f"{row.place}: {query!r} and {document!r} are there already")
        relevance[query][document] = _grade(row)
    if not relevance:
        raise DataError(f"{file}: is empty")
    return relevance


def _known(row: _Row, key: str, known: Mapping[str, object]) -> str:
    value = _id(row, key)
    if value not in known:
        raise DataError(f"{row.place}: no text has the {key} {value!r}")
    return value


def _id(row: _Row, *keys: str) -> str:
    """A string, or a whole number as one."""
    value = next((row.fields[key] for key in keys if key in row.fields), None)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"{row.place}: needs {' or '.join(keys)}, a string or a whole number")
    return str(value)


def _text(row: _Row) -> str:
    text = row.fields.get("text")
    if not isinstance(text, str):
        raise DataError(f"{row.place}: needs text, a string")
    return text


def _grade(row: _Row) -> int:
    try:
        return int(str(row.fields["score"]))
    except (KeyError, ValueError):
        raise DataError(f"{row.place}: needs score, a whole number") from None


def _rows(file: Path) -> Iterator[_Row]:
    """The lines that are not blank."""
    with file.open(encoding="utf-8", newline="\n") as lines:
        try:
            numbered = ((f"{file}:{number}", line.rstrip("\r\n")) for number, line in enumerate(lines, start=1))
            yield from _READERS[file.suffix]((place, line) for place, line in numbered if line.strip())
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: is not UTF-8: {error}") from error


def _json_rows(lines: Iterator[tuple[str, str]]) -> Iterator[_Row]:
    for place, line in lines:
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: is not JSON: {error.msg}") from error
        if not isinstance(fields, dict):
            raise DataError(f"{place}: is not a JSON object")
        yield _Row(fields=fields, place=place)


def _tab_rows(lines: Iterator[tuple[str, str]]) -> Iterator[_Row]:
    _, first = next(lines, ("", ""))
    names = first.split("\t")
    for place, line in lines:
        values = line.split("\t")
        if len(values) != len(names):
            raise DataError(f"{place}: has {len(values)} columns, the first line {len(names)}")
        yield _Row(fields=dict(zip(names, values, strict=True)), place=place)


_READERS: Mapping[str, Callable[[Iterator[tuple[str, str]]], Iterator[_Row]]] = {
    ".jsonl": _json_rows,
    ".tsv": _tab_rows,
}
