"""The oracle of the evaluation: the authors' protocol of retrieval and reranking with transformers in this process.

Nothing of evaluation/ and nothing of mteb is used: prompts, search, ranking and nDCG are written out here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.official import (
    NO,
    RERANK_PREFIX,
    RERANK_SUFFIX,
    YES,
    OfficialEmbedding,
    detailed_instruct,
)

Run = dict[str, dict[str, float]]  # query id to document id to score
Relevance = Mapping[str, Mapping[str, int]]

PLACEHOLDER = "."
BATCH_TOKENS = 16_384


def document_text(row: Mapping[str, str]) -> str:
    """Title and text in one line, as mteb joins them."""
    return f"{row['title']} {row['text']}".strip() or PLACEHOLDER


class OfficialRetrieval:
    """Cosines of all queries and all documents."""

    def __init__(self, folder: Path, *, batch_size: int = 32) -> None:
        self._model = OfficialEmbedding(folder)
        self._batch_size = batch_size

    def search(
        self, queries: Sequence[Mapping[str, str]], corpus: Sequence[Mapping[str, str]], instruction: str
    ) -> Run:
        """Every document's score for every query."""
        query_vectors = self._embed([detailed_instruct(instruction, query["text"]) for query in queries])
        scores = query_vectors @ self._embed([document_text(document) for document in corpus]).T
        ids = [document["id"] for document in corpus]
        return {
            query["id"]: dict(zip(ids, row.tolist(), strict=True)) for query, row in zip(queries, scores, strict=True)
        }

    def _embed(self, texts: list[str]) -> np.ndarray:
        """(n, dimensions) float64; texts of like length together, since padding costs time."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors = [self._model.embed([texts[place] for place in batch]) for batch in _slices(order, self._batch_size)]
        return np.concatenate(vectors)[np.argsort(order)].astype(np.float64)


class OfficialReranking:
    """The probability of yes for pairs of query and document, in padded batches."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._prefix, self._suffix = map(self._encode, (RERANK_PREFIX, RERANK_SUFFIX))

    def rerank(
        self,
        run: Run,
        queries: Sequence[Mapping[str, str]],
        corpus: Sequence[Mapping[str, str]],
        instruction: str,
        *,
        top_k: int = 100,
    ) -> Run:
        """New scores of the `top_k` best of each query."""
        documents = {document["id"]: document_text(document) for document in corpus}
        pairs = [(query, best) for query in queries for best in ranking(run[query["id"]])[:top_k]]
        prompts = [self._prompt(query["text"], documents[best], instruction) for query, best in pairs]
        reranked: Run = {query["id"]: {} for query in queries}
        for (query, best), score in zip(pairs, self._scores(prompts), strict=True):
            reranked[query["id"]][best] = score
        return reranked

    def _prompt(self, query: str, document: str, instruction: str) -> list[int]:
        body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        return [*self._prefix, *self._encode(body), *self._suffix]

    def _scores(self, prompts: list[list[int]]) -> list[float]:
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        longest = max(map(len, prompts))
        scores = [0.0] * len(prompts)
        for batch in _slices(order, max(1, BATCH_TOKENS // longest)):
            for place, score in zip(batch, self._batch_scores([prompts[place] for place in batch]), strict=True):
                scores[place] = score
        return scores

    def _batch_scores(self, prompts: list[list[int]]) -> list[float]:
        batch = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**batch, logits_to_keep=1).logits[:, -1, [NO, YES]]
        return logits.double().softmax(dim=1)[:, 1].tolist()

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)


def ranking(scores: Mapping[str, float]) -> list[str]:
    """Best first; of equal ones the greater id, as trec_eval has it."""
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def ndcg_at_10(relevance: Relevance, run: Run) -> float:
    """The mean over the queries that have answers."""
    return float(np.mean([_gain(ranking(run[query])[:10], grades) for query, grades in relevance.items()]))


def _gain(ranked: Sequence[str], grades: Mapping[str, int]) -> float:
    ideal = _discounted(sorted(grades.values(), reverse=True)[:10])
    return _discounted(grades.get(document, 0) for document in ranked) / ideal if ideal else 0.0


def _discounted(gains: Iterable[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _slices(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (places[first : first + size] for first in range(0, len(places), size))
