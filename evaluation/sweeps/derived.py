"""Vectors of every width and encoding from one pass of float32 vectors, and the proof that they are the service's.

A sweep computes each text once. What the service does then, it does to each vector alone: cut, normalise, encode.
encodings.derive does that again. So that it is the service's encoding that is measured, a sample of every row is asked
of the service in the row's own form, and a row whose derived vectors are others ends the sweep.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import EvaluationError
from evaluation.protocol.rules import sendable
from evaluation.protocol.settings import Settings
from evaluation.service.embedder import Vectors
from evaluation.service.encodings import derive, signs
from qwen3_client import Client, EmbedResult
from qwen3_client.options import Encoding

SAMPLE_TEXTS = 32
# What a bfloat16 model gives when a text is computed in another batch is above this, also by signs; a mistake is not.
LEAST_COSINE = 0.97


class DerivedVectors:
    """Vectors of the width and encoding of `settings` from `source`, which has float32 ones of the model's width."""

    def __init__(self, source: Vectors, client: Client, settings: Settings) -> None:
        self._source = source
        self._client = client
        self._settings = settings
        self._proved: set[Encoding] = set()

    def vectors(
        self, texts: Sequence[str], instruction: str | None, *, task: str, encoding: Encoding | None = None
    ) -> NDArray[np.float32]:
        """(n, dimensions) float32, as Embedder.vectors. Raises EvaluationError where the service's are others."""
        encoding = encoding or self._settings.encoding
        full = self._source.vectors(texts, instruction, task=task)
        derived = derive(full, self._settings.dimensions, encoding)
        if encoding not in self._proved:
            served = self._served(texts[:SAMPLE_TEXTS], instruction, encoding)
            check_same(derived[:SAMPLE_TEXTS], served, f"{encoding} of {self._settings.dimensions} values")
            self._proved.add(encoding)
        return derived

    def _served(self, texts: Sequence[str], instruction: str | None, encoding: Encoding) -> NDArray[np.float32]:
        result = self._client.embed(
            [sendable(text) or self._settings.protocol.placeholder for text in texts],
            model=self._settings.served.model,
            instruction=instruction,
            dimensions=self._settings.dimensions,
            encoding=encoding,
            truncation="end",
            priority="bulk",
        )
        return decoded(result)


def decoded(result: EmbedResult) -> NDArray[np.float32]:
    """(n, dimensions) float32 of vectors in any encoding, -1 and 1 for "binary"."""
    if result.vectors.dtype == np.uint8:
        return signs(result.vectors, result.dimensions)
    return result.as_float32()


def check_same(derived: NDArray[np.float32], served: NDArray[np.float32], what: str) -> None:
    """Raises EvaluationError where the mean cosine of two arrays of vectors is below LEAST_COSINE."""
    products = (derived * served).sum(axis=1)
    lengths = np.linalg.norm(derived, axis=1) * np.linalg.norm(served, axis=1)
    cosine = float(np.mean(products / np.where(lengths == 0, 1, lengths)))
    if not cosine >= LEAST_COSINE:
        raise EvaluationError(
            f"the service's vectors in {what} are not those that its float32 vectors give (cosine {cosine:.4f})"
        )
