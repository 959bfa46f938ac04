"""The library's SentenceTransformer, whose model is in the service."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qwen3_client.client import Client
from qwen3_client.options import Priority, Truncation
from qwen3_client.sentence_transformers.keywords import (
    Precision,
    check_computation,
    either_inputs,
    encoding_of,
    instruction_of,
    query_prompt,
    refuse_loading_keywords,
)
from qwen3_client.sentence_transformers.progress import with_progress
from qwen3_client.sentence_transformers.remote_model import RemoteModel, served_model
from qwen3_client.sentence_transformers.similarity import (
    Similarity,
    checked_similarity,
    pairwise_similarity,
    similarity,
)
from qwen3_client.sentence_transformers.tensors import as_array, converted, like

Texts = str | Iterable[str]

_PAD_TOKEN_ID = 151_643  # <|endoftext|>


class SentenceTransformer(RemoteModel):
    """An embedding model of the service behind `client`: that of the given id, or the service's default.

    Methods, keywords and results are those of sentence_transformers.SentenceTransformer. A text that is longer than
    the model takes is cut at its end, as by the library, unless `truncation` is "error" or "start". `priority` is
    that of Client.embed. Raises ModelNotFoundError where the service has no such model.

    Methods raise what those of Client raise; ValueError or TypeError, naming the keyword, for what a service cannot
    do; and ImportError where tensors are asked for and torch is absent.
    """

    def __init__(
        self,
        model_name_or_path: str = "",
        *,
        client: Client,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: Similarity | None = None,
        truncate_dim: int | None = None,
        truncation: Truncation = "end",
        priority: Priority | None = None,
        **loading: object,
    ) -> None:
        refuse_loading_keywords("SentenceTransformer", loading)
        model = served_model(client, model_name_or_path, "embedding")
        super().__init__(
            client,
            model,
            prompts={"query": query_prompt(model.default_instruction), "document": "", **(prompts or {})},
            default_prompt_name=default_prompt_name,
            truncation=truncation,
            priority=priority,
        )
        self.similarity_fn_name = similarity_fn_name
        self.truncate_dim = truncate_dim

    def encode(
        self,
        inputs: Texts | None = None,
        *,
        sentences: Texts | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding"] = "sentence_embedding",
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: None = None,
    ) -> Any:
        """Vectors (n, dimensions) of n texts, or (dimensions,) of a single one, in the order of the texts.

        float32; int8 for "binary" and uint8 for "ubinary", (n, ceil(dimensions / 8)). An array, unless tensors are
        asked for. Vectors have length 1 but for those that are cut to `truncate_dim` without `normalize_embeddings`:
        the library cuts them after its model has normalised them.
        """
        check_computation(batch_size=batch_size, device=device, pool=pool, chunk_size=chunk_size)
        if output_value != "sentence_embedding":
            raise ValueError(f"output_value {output_value!r}: the service gives sentence embeddings only")
        inputs = either_inputs(inputs, sentences)
        vectors = self._vectors(
            [inputs] if isinstance(inputs, str) else list(inputs),
            instruction=instruction_of(self._prompt(prompt, prompt_name)),
            precision=precision,
            dimensions=self._dimensions(truncate_dim),
            normalize=normalize_embeddings,
            shown=bool(show_progress_bar),
        )
        found = converted(vectors, to_numpy=convert_to_numpy, to_tensor=convert_to_tensor, device=device)
        return found[0] if isinstance(inputs, str) else found

    def encode_query(self, inputs: Texts | None = None, **keywords: Any) -> Any:
        """encode() with the prompt "query", unless another is given."""
        return self.encode(inputs, **self._prompted(keywords, "query"))

    def encode_document(self, inputs: Texts | None = None, **keywords: Any) -> Any:
        """encode() with the first of the prompts "document", "passage" and "corpus", unless another is given."""
        return self.encode(inputs, **self._prompted(keywords, "document", "passage", "corpus"))

    @property
    def similarity_fn_name(self) -> Similarity:
        """What similarity() computes: "cosine" unless set. Setting another name than the four raises ValueError."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: Similarity | None) -> None:
        self._similarity_fn_name = checked_similarity(name or "cosine")

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """(n1, n2) float32, of each with each; a tensor where one is given, else an array."""
        scores = similarity(self.similarity_fn_name, as_array(embeddings1), as_array(embeddings2))
        return like(scores, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """(n,) float32, of the first with the first and so on; a tensor where one is given, else an array."""
        scores = pairwise_similarity(self.similarity_fn_name, as_array(embeddings1), as_array(embeddings2))
        return like(scores, embeddings1, embeddings2)

    def tokenize(self, texts: Iterable[str]) -> dict[str, NDArray[np.int64]]:
        """`input_ids` and `attention_mask` of the texts without a prompt, (n, longest), filled up at the end."""
        sequences = self._client.tokenize(texts, model=self._model.id)
        lengths = np.array([len(sequence.ids) for sequence in sequences])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, _PAD_TOKEN_ID, dtype=np.int64)
        ids[mask] = np.concatenate([sequence.ids for sequence in sequences])
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}

    def get_embedding_dimension(self) -> int:
        """Dimensions of what encode() gives."""
        return self._dimensions(None)

    def get_sentence_embedding_dimension(self) -> int:
        """The same."""
        return self.get_embedding_dimension()

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Inside, encode() cuts vectors to so many dimensions."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    def _prompted(self, keywords: dict[str, Any], *names: str) -> dict[str, Any]:
        """The keywords, and the first of these prompts that there is, unless they say which."""
        if keywords.get("prompt") is not None or keywords.get("prompt_name") is not None:
            return keywords
        return keywords | {"prompt_name": next((name for name in names if name in self.prompts), None)}

    def _dimensions(self, truncate_dim: int | None) -> int:
        """How wide vectors are to be. Raises ValueError for fewer than the model has a meaning for."""
        asked = self.truncate_dim if truncate_dim is None else truncate_dim
        if asked is None:
            return self._model.native_dimensions
        if asked < self._model.min_dimensions:
            raise ValueError(f"truncate_dim must be at least {self._model.min_dimensions}, not {asked}")
        return min(asked, self._model.native_dimensions)

    def _vectors(
        self,
        texts: list[str],
        *,
        instruction: str | None,
        precision: str,
        dimensions: int,
        normalize: bool,
        shown: bool,
    ) -> NDArray[Any]:
        encoding = encoding_of(precision)
        if not texts:
            return np.empty(0, dtype=np.float32)
        # The service normalises what it has cut; the library cuts what is normalised. Signs are the same.
        is_cut_there = normalize or encoding == "binary"
        vectors = self._embed(
            texts, shown=shown, instruction=instruction, encoding=encoding, dimensions=dimensions if is_cut_there else 0
        )
        if precision == "binary":
            return (vectors ^ 0x80).view(np.int8)  # the same bits, less 128
        return vectors if is_cut_there else vectors[:, :dimensions].copy()

    def _embed(self, texts: list[str], *, shown: bool, **options: Any) -> NDArray[Any]:
        if not shown:
            return self._client.embed(texts, **self._options, **options).vectors
        parts = (result.vectors for result in self._client.embed_stream(texts, **self._options, **options))
        return np.concatenate(list(with_progress(parts, len(texts), shown=shown)))
