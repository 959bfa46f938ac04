"""Vectors of a task's texts: asked of the service in the bulk lane, kept on disk, so that none is asked for twice."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.bars import Bars
from evaluation.protocol.rules import sendable
from evaluation.protocol.settings import Settings
from evaluation.records.counting import READ_FIELDS, Counts, Tally
from evaluation.records.rows import RowFile, Rows, RowStore, digest_of
from evaluation.service.encodings import signs
from evaluation.service.served import check_revision
from qwen3_client import Client, EmbedResult
from qwen3_client.options import Encoding


class Vectors(Protocol):
    """Where vectors come from: an Embedder, or what stands in for one."""

    def vectors(
        self, texts: Sequence[str], instruction: str | None, *, task: str, encoding: Encoding | None = None
    ) -> NDArray[np.float32]: ...


class Embedder:
    """Embeds as `settings` say. What is under way when the process dies is lost: up to 17 times 64 texts."""

    def __init__(self, client: Client, settings: Settings, store: RowStore, tally: Tally, bars: Bars) -> None:
        self._client = client
        self._settings = settings
        self._store = store
        self._tally = tally
        self._bars = bars

    def vectors(
        self, texts: Sequence[str], instruction: str | None, *, task: str, encoding: Encoding | None = None
    ) -> NDArray[np.float32]:
        """(n, dimensions) float32: for "int8" what it stands for, for "binary" -1 and 1 in place of signs.

        `instruction` None sends a text as it is. `encoding` is that of the settings unless given.
        """
        encoding = encoding or self._settings.encoding
        file = self._store.file(task, encoding, _fields(encoding, self._settings.dimensions))
        kept = [sendable(text) for text in texts]
        sent = [text or self._settings.protocol.placeholder for text in kept]
        digests = [digest_of(instruction, text) for text in sent]
        missing = {digest: text for digest, text in zip(digests, sent, strict=True) if digest not in file}
        fresh = self._embed(missing, instruction, encoding, file, what=task)
        rows = file.read(digests)
        self._tally.add(fresh + Counts.of(rows, num_placeholders=kept.count("")))
        return _as_float32(rows, encoding, self._settings.dimensions)

    def _embed(
        self, missing: Mapping[bytes, str], instruction: str | None, encoding: Encoding, file: RowFile, *, what: str
    ) -> Counts:
        """Answers come in the order of the texts, and are on disk before the next is taken."""
        if not missing:
            return Counts()
        began, num_tokens, digests = time.monotonic(), 0, iter(missing)
        with self._bars.counting(f"{what}: texts", len(missing)) as done:
            for result in self._client.embed_stream(
                missing.values(),
                model=self._settings.served.model,
                instruction=instruction,
                dimensions=self._settings.dimensions,
                encoding=encoding,
                truncation="end",
                priority="bulk",
            ):
                check_revision(self._settings.served, result.model_revision)
                _append(file, list(islice(digests, len(result.token_counts))), result)
                num_tokens += sum(result.token_counts)
                done(len(result.token_counts))
        return Counts(num_sent_texts=len(missing), num_sent_tokens=num_tokens, seconds=time.monotonic() - began)


def _fields(encoding: Encoding, dimensions: int) -> list[tuple[object, ...]]:
    """A vector as it came over the wire, and what came with it."""
    dtype, width = _ON_DISK[encoding]
    return [("vector", dtype, (width(dimensions),)), ("scale", "<f4"), *READ_FIELDS]


def _append(file: RowFile, digests: list[bytes], result: EmbedResult) -> None:
    file.append(
        digests,
        vector=result.vectors,
        scale=1.0 if result.scales is None else result.scales,
        num_tokens=result.token_counts,
        truncated=result.truncated,
    )


def _as_float32(rows: Rows, encoding: Encoding, dimensions: int) -> NDArray[np.float32]:
    if encoding == "binary":
        return signs(rows["vector"], dimensions)
    vectors = rows["vector"].astype(np.float32)
    return vectors * rows["scale"][:, None] if encoding == "int8" else vectors


def _all(dimensions: int) -> int:
    return dimensions


def _eighth(dimensions: int) -> int:
    return -(-dimensions // 8)


_ON_DISK: Mapping[Encoding, tuple[str, Callable[[int], int]]] = {
    "float32": ("<f4", _all),
    "float16": ("<f2", _all),
    "int8": ("i1", _all),
    "binary": ("u1", _eighth),
}
