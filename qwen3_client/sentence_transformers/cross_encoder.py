"""The library's CrossEncoder, whose model is in the service."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3_client.client import Client
from qwen3_client.options import Priority, Truncation
from qwen3_client.requests import list_of_texts, refuse_single_text
from qwen3_client.results import RerankHit
from qwen3_client.sentence_transformers.keywords import (
    check_computation,
    either_inputs,
    refuse_loading_keywords,
)
from qwen3_client.sentence_transformers.progress import with_progress
from qwen3_client.sentence_transformers.remote_model import RemoteModel, served_model
from qwen3_client.sentence_transformers.tensors import activated, converted

Pair = tuple[str, str]
Pairs = Sequence[str] | Iterable[Sequence[str]]

MAX_QUERIES_IN_FLIGHT = 16


class CrossEncoder(RemoteModel):
    """A reranker of the service behind `client`: that of the given id, or the service's default.

    Methods, keywords and results are those of sentence_transformers.CrossEncoder. A prompt is the instruction. A score
    is a probability, or what `activation_fn` makes of the logit of yes less that of no. Of a document that is too long
    the end is cut, unless `truncation` is "error" or "start". `priority` is that of Client.rerank.

    Raises as SentenceTransformer does.
    """

    def __init__(
        self,
        model_name_or_path: str = "",
        *,
        client: Client,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        truncation: Truncation = "end",
        priority: Priority | None = None,
        **loading: object,
    ) -> None:
        refuse_loading_keywords("CrossEncoder", loading)
        super().__init__(
            client,
            served_model(client, model_name_or_path, "rerank"),
            prompts=prompts or {},
            default_prompt_name=default_prompt_name,
            truncation=truncation,
            priority=priority,
        )
        self.activation_fn = activation_fn
        self.num_labels = 1

    def predict(
        self,
        inputs: Pairs | None = None,
        *,
        sentences: Pairs | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        apply_softmax: bool | None = False,  # noqa: ARG002 - of several labels, here as in the library
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        pool: None = None,
        chunk_size: None = None,
    ) -> Any:
        """Scores (n,) float32 of n pairs of a query and a document, or a single one of a single pair.

        An array, unless tensors are asked for. The function gets a tensor of logits, (n, 1).
        """
        check_computation(batch_size=batch_size, device=device, pool=pool, chunk_size=chunk_size)
        pairs, is_single = _pairs(either_inputs(inputs, sentences))
        activation_fn = self.activation_fn if activation_fn is None else activation_fn
        scores = self._scores(
            pairs,
            instruction=self._prompt(prompt, prompt_name) or None,
            score_type="probability" if activation_fn is None else "logit",
            shown=bool(show_progress_bar),
        )
        if activation_fn is not None:
            scores = activated(scores, activation_fn)
        found = converted(scores, to_numpy=convert_to_numpy, to_tensor=convert_to_tensor, device=device)
        return found[0] if is_single else found

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        *,
        return_documents: bool = False,
        **keywords: Any,
    ) -> list[dict[str, Any]]:
        """`corpus_id` and `score` of the best `top_k` documents, all for None; with `text` for `return_documents`.

        Best first, ties by their order. The other keywords are those of predict() that do not say what comes back.
        """
        documents = list_of_texts(documents, "documents")
        pairs = [(query, document) for document in documents]
        scores = self.predict(pairs, convert_to_numpy=True, convert_to_tensor=False, **keywords).tolist()
        ranking: list[dict[str, Any]] = [{"corpus_id": place, "score": score} for place, score in enumerate(scores)]
        if return_documents:
            ranking = [entry | {"text": document} for entry, document in zip(ranking, documents, strict=True)]
        return sorted(ranking, key=itemgetter("score"), reverse=True)[:top_k]

    def _scores(self, pairs: list[Pair], *, shown: bool, **options: Any) -> NDArray[np.float32]:
        """(n,). A call for each query, with all of its documents; a few at a time, in the caller's trace."""
        places = _places_by_query(pairs)

        def hits(context: Context, query: str, at: list[int]) -> list[RerankHit]:
            documents = [pairs[place][1] for place in at]
            return context.run(self._client.rerank, query, documents, **self._options, **options)

        scores = np.empty(len(pairs), dtype=np.float32)
        with ThreadPoolExecutor(MAX_QUERIES_IN_FLIGHT) as threads:
            contexts = [copy_context() for _ in places]
            answers = threads.map(hits, contexts, places, places.values())
            for at, found in zip(places.values(), with_progress(answers, len(pairs), shown=shown), strict=True):
                scores[[at[hit.index] for hit in found]] = [hit.score for hit in found]
        return scores


def _pairs(inputs: Pairs) -> tuple[list[Pair], bool]:
    """Those given, and whether it was a single one. Raises TypeError for what is no pair of texts."""
    refuse_single_text(inputs, "inputs")
    given = list(inputs)
    is_single = bool(given) and isinstance(given[0], str)
    return [_pair(each) for each in ([given] if is_single else given)], is_single


def _pair(texts: object) -> Pair:
    match texts.tolist() if isinstance(texts, np.ndarray) else texts:
        case [str(query), str(document)]:
            return query, document
    raise TypeError("inputs must be pairs of texts, each of a query and a document")


def _places_by_query(pairs: Sequence[Pair]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(place)
    return places
