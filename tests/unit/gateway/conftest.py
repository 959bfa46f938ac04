"""The real tokenizer in its two forms, models that are served with it, and the official way to token ids."""

from collections.abc import Callable
from functools import cache

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from gateway.registry import Catalog, ServedModel
from gateway.tokenization import PromptTokenizer
from gateway.validation import Limits
from jobqueue.announcements import Liveness
from jobqueue.messages import Operation
from tests.support.echo import announcement, tokenizer_json, write_tokenizer
from tests.support.official import RERANK_PREFIX, RERANK_SUFFIX


@pytest.fixture(scope="session")
def embed_tokenizer() -> PromptTokenizer:
    return PromptTokenizer(tokenizer_json(Operation.EMBED))


@pytest.fixture(scope="session")
def rerank_tokenizer() -> PromptTokenizer:
    return PromptTokenizer(tokenizer_json(Operation.RERANK))


@pytest.fixture(scope="session")
def transformers_tokenizer(tmp_path_factory) -> Callable[[Operation], PreTrainedTokenizerBase]:
    @cache
    def load(operation: Operation) -> PreTrainedTokenizerBase:
        folder = tmp_path_factory.mktemp("tokenizer")
        write_tokenizer(folder, operation)
        return AutoTokenizer.from_pretrained(folder)

    return load


@pytest.fixture(scope="session")
def official_embed(transformers_tokenizer) -> Callable[[str], list[int]]:
    """The whole text at once; the tokenizer appends <|endoftext|>."""
    return lambda text: transformers_tokenizer(Operation.EMBED)(text).input_ids


@pytest.fixture(scope="session")
def official_rerank(transformers_tokenizer) -> Callable[[str, str, str], list[int]]:
    """Prefix, body and suffix on their own, joined: (instruction, query, document)."""

    def encode(instruction: str, query: str, document: str) -> list[int]:
        tokenizer = transformers_tokenizer(Operation.RERANK)
        body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        parts = (RERANK_PREFIX, body, RERANK_SUFFIX)
        return [id_ for part in parts for id_ in tokenizer.encode(part, add_special_tokens=False)]

    return encode


@pytest.fixture(scope="session")
def served(embed_tokenizer, rerank_tokenizer) -> Callable[..., ServedModel]:
    """A model as the registry has it; fields of its announcement may be given."""

    def make(model_id: str, operation: Operation, liveness: Liveness = Liveness.LIVE, **fields) -> ServedModel:
        tokenizer = embed_tokenizer if operation is Operation.EMBED else rerank_tokenizer
        found = announcement(model_id, operation, **fields)
        return ServedModel(announcement=found, liveness=liveness, tokenizer=tokenizer)

    return make


@pytest.fixture(scope="session")
def catalog_of() -> Callable[..., Catalog]:
    return lambda *models, reachable=True: Catalog(models={model.id: model for model in models}, reachable=reachable)


@pytest.fixture(scope="session")
def catalog(served, catalog_of) -> Catalog:
    """One embedding model, `emb`, and one reranker, `rer`."""
    return catalog_of(served("emb", Operation.EMBED), served("rer", Operation.RERANK))


@pytest.fixture(scope="session")
def limits() -> Limits:
    return Limits(max_embed_inputs=8, max_rerank_documents=10, max_text_bytes=1_000_000, max_request_tokens=1_000_000)
