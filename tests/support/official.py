"""The oracles: what the official README does with transformers, on a checkpoint folder, in float32."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
RERANK_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
RERANK_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
NO, YES = 2152, 9693


def detailed_instruct(instruction: str, query: str) -> str:
    return f"Instruct: {instruction}\nQuery:{query}"


class OfficialEmbedding:
    """Left padding, last position, slice, normalise."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def embed(self, texts: Sequence[str], *, max_length: int = 32_768, dimensions: int | None = None) -> np.ndarray:
        """(n, dimensions) float32, unit length."""
        batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            pooled = self._model(**batch).last_hidden_state[:, -1, :dimensions]
        return torch.nn.functional.normalize(pooled, dim=1).numpy()

    def embed_ids(self, sequences: Sequence[Sequence[int]]) -> np.ndarray:
        """The same for token ids of equal numbers."""
        with torch.inference_mode():
            pooled = self._model(input_ids=torch.tensor(sequences)).last_hidden_state[:, -1]
        return torch.nn.functional.normalize(pooled, dim=1).numpy()


class OfficialReranker:
    """The official template, and the probability of yes at the last position."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def scores(self, query: str, documents: Sequence[str], instruction: str = DEFAULT_INSTRUCTION) -> np.ndarray:
        """(n,) float64."""
        return np.concatenate([self._score(query, document, instruction) for document in documents])

    def _score(self, query: str, document: str, instruction: str) -> np.ndarray:
        body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        ids = [token for part in (RERANK_PREFIX, body, RERANK_SUFFIX) for token in self._encode(part)]
        with torch.inference_mode():
            logits = self._model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[:, -1, [NO, YES]]
        return logits.double().softmax(dim=1)[:, 1].numpy()

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)
