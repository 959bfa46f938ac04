"""What stands in for sentence-transformers gives what the library gives, keyword by keyword, from one checkpoint."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import sentence_transformers as library
import torch

from qwen3_client import Client, InvalidRequestError
from qwen3_client.sentence_transformers import CrossEncoder, SentenceTransformer

TOLERANCE = 2e-6

TEXTS = [
    "The capital of China is Beijing.",
    "重力是一种使两个物体相互吸引的力。",
    "def f(x):\n\treturn {k: v**2 for k, v in x.items()}",
    "👩🏽‍🚀🚀 to the 🌕!!",
    "x",
]
QUERY = "What is the capital of China?"
PAIRS = [(QUERY, text) for text in TEXTS] + [("Explain gravity", text) for text in reversed(TEXTS)]
INSTRUCTION = "Find what is like it"
PROMPT = f"Instruct: {INSTRUCTION}\nQuery:"

# Of every keyword the values with which it does as in the library, and those with which it is refused.
COMPUTATION = {
    "batch_size": [1, 64],
    "show_progress_bar": [True, None],
    "device": ["cpu"],
    "pool": [],
    "chunk_size": [],
}
COMPUTATION_REFUSED = {"batch_size": [0], "device": [["cpu", "cpu"]], "pool": [{}], "chunk_size": [8]}
RESULTS = {"convert_to_numpy": [True, False], "convert_to_tensor": [True, False]}
ENCODE = {
    **COMPUTATION,
    **RESULTS,
    "prompt_name": ["query", "document", None],
    "prompt": [PROMPT, ""],
    "output_value": ["sentence_embedding"],
    "precision": ["float32", "binary", "ubinary"],
    "normalize_embeddings": [True, False],
    "truncate_dim": [32, 100, 1000, None],
}
ENCODE_REFUSED = {
    **COMPUTATION_REFUSED,
    "prompt_name": ["clustering"],
    "prompt": ["query: ", f"{PROMPT} "],
    "output_value": ["token_embeddings", None],
    "precision": ["int8", "uint8"],
    "truncate_dim": [31, 0],
}
RANK = {
    **COMPUTATION,
    "top_k": [None, 2, 100],
    "return_documents": [True, False],
    "prompt_name": [None],
    "prompt": [INSTRUCTION, ""],
    "activation_fn": [None, torch.nn.Identity(), torch.nn.Tanh()],
}
PREDICT = {**RANK, **RESULTS, "apply_softmax": [True, False]}
RERANK_REFUSED = {**COMPUTATION_REFUSED, "prompt_name": ["query"]}

EMBEDDING_SETTINGS = {
    "prompts": {"web": PROMPT, "query": ""},
    "default_prompt_name": "web",
    "similarity_fn_name": "dot",
    "truncate_dim": 64,
}
RERANK_SETTINGS = {
    "prompts": {"similar": INSTRUCTION},
    "default_prompt_name": "similar",
    "activation_fn": torch.nn.Identity(),
}
LOADING = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}, "local_files_only": True}


@pytest.fixture(scope="module")
def client(address) -> Iterator[Client]:
    with Client(address) as found:
        yield found


@pytest.fixture(scope="module")
def embedder(embedding_checkpoint) -> library.SentenceTransformer:
    return library.SentenceTransformer(str(embedding_checkpoint), **LOADING)


@pytest.fixture(scope="module")
def reranker(rerank_checkpoint) -> library.CrossEncoder:
    return library.CrossEncoder(str(rerank_checkpoint), **LOADING)


@pytest.fixture(scope="module")
def our_embedder(client) -> SentenceTransformer:
    return SentenceTransformer(client=client)


@pytest.fixture(scope="module")
def our_reranker(client) -> CrossEncoder:
    return CrossEncoder(client=client)


def keywords_of(function: Callable) -> list[str]:
    inputs = {"self", "model_name_or_path", "inputs", "query", "documents", "kwargs"}
    return [name for name in inspect.signature(function).parameters if name not in inputs]


def assert_same(ours: object, theirs: object) -> None:
    """The same types, shapes and dtypes, and the same numbers but for rounding."""
    assert type(ours) is type(theirs)
    if isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            assert_same(our, their)
    elif isinstance(ours, dict):
        assert_same(list(ours.items()), list(theirs.items()))
    elif isinstance(ours, (str, int)):
        assert ours == theirs
    else:
        assert np.shape(ours) == np.shape(theirs)
        assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)
        assert np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def assert_honoured_or_refused(keyword: str, ours: Callable, theirs: Callable, honoured: dict, refused: dict) -> None:
    assert keyword in honoured | refused, "the library has got it since"
    for value in honoured.get(keyword, []):
        assert_same(ours(**{keyword: value}), theirs(**{keyword: value}))
    for value in refused.get(keyword, []):
        with pytest.raises((ValueError, TypeError), match=keyword):
            ours(**{keyword: value})


@pytest.mark.parametrize("keyword", keywords_of(library.SentenceTransformer.encode))
def test_each_keyword_of_encode_is_honoured_or_refused_by_its_name(keyword, our_embedder, embedder):
    ours, theirs = partial(our_embedder.encode, TEXTS), partial(embedder.encode, TEXTS)
    assert_honoured_or_refused(keyword, ours, theirs, ENCODE, ENCODE_REFUSED)


@pytest.mark.parametrize("keyword", keywords_of(library.CrossEncoder.predict))
def test_each_keyword_of_predict_is_honoured_or_refused_by_its_name(keyword, our_reranker, reranker):
    ours, theirs = partial(our_reranker.predict, PAIRS), partial(reranker.predict, PAIRS)
    assert_honoured_or_refused(keyword, ours, theirs, PREDICT, RERANK_REFUSED)


@pytest.mark.parametrize("keyword", keywords_of(library.CrossEncoder.rank))
def test_each_keyword_of_rank_is_honoured_or_refused_by_its_name(keyword, our_reranker, reranker):
    ours, theirs = partial(our_reranker.rank, QUERY, TEXTS), partial(reranker.rank, QUERY, TEXTS)
    assert_honoured_or_refused(keyword, ours, theirs, RANK, RERANK_REFUSED)


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        pytest.param(SentenceTransformer, library.SentenceTransformer, EMBEDDING_SETTINGS, id="SentenceTransformer"),
        pytest.param(CrossEncoder, library.CrossEncoder, RERANK_SETTINGS, id="CrossEncoder"),
    ],
)
def test_keywords_that_say_how_a_model_is_loaded_are_refused_by_name(ours, theirs, settings, client):
    keywords = set(keywords_of(theirs.__init__))
    assert set(settings) <= keywords
    for keyword in keywords - set(settings):
        with pytest.raises(TypeError, match=keyword):
            ours(client=client, **{keyword: None})


@pytest.mark.parametrize("method", ["encode_query", "encode_document"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompt": PROMPT},
        {"prompt_name": "query"},
        {"truncate_dim": 32, "normalize_embeddings": True},
        {"truncate_dim": 100, "precision": "ubinary"},
    ],
    ids=str,
)
def test_queries_and_documents_have_the_prompts_of_the_library(method, options, our_embedder, embedder):
    ours, theirs = getattr(our_embedder, method), getattr(embedder, method)
    assert keywords_of(theirs) == keywords_of(embedder.encode)
    assert_same(ours(TEXTS, **options), theirs(TEXTS, **options))


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param("one text", id="a text"),
        pytest.param(TEXTS[:1], id="a list of one"),
        pytest.param(tuple(TEXTS), id="a tuple"),
        pytest.param(np.array(TEXTS), id="an array"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}], ids=str)
def test_whatever_holds_the_texts_the_vectors_come_as_from_the_library(inputs, options, our_embedder, embedder):
    ours, theirs = our_embedder.encode(inputs, **options), embedder.encode(inputs, **options)
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(PAIRS[0], id="a pair"),
        pytest.param(list(PAIRS[0]), id="a list of two"),
        pytest.param(np.array(PAIRS), id="an array"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}], ids=str)
def test_whatever_holds_the_pairs_the_scores_come_as_from_the_library(inputs, options, our_reranker, reranker):
    assert_same(our_reranker.predict(inputs, **options), reranker.predict(inputs, **options))


@pytest.mark.parametrize("options", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}], ids=str)
def test_nothing_has_nothing(options, our_embedder, embedder, our_reranker, reranker):
    for ours, theirs in ((our_embedder.encode, embedder.encode), (our_reranker.predict, reranker.predict)):
        assert type(ours([], **options)) is type(theirs([], **options))
        assert np.shape(ours([], **options)) == np.shape(theirs([], **options)) == (0,)
    assert our_reranker.rank(QUERY, []) == reranker.rank(QUERY, []) == []


def test_a_model_keeps_its_settings(client, embedding_checkpoint):
    ours = SentenceTransformer(client=client, **EMBEDDING_SETTINGS)
    theirs = library.SentenceTransformer(str(embedding_checkpoint), **LOADING, **EMBEDDING_SETTINGS)
    assert_same(ours.encode(TEXTS), theirs.encode(TEXTS))
    assert_same(ours.encode_query(TEXTS), theirs.encode_query(TEXTS))
    assert_same(ours.encode_document(TEXTS), theirs.encode_document(TEXTS))
    with ours.truncate_embeddings(32), theirs.truncate_embeddings(32):
        assert_same(ours.encode(TEXTS), theirs.encode(TEXTS))
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension() == 64
    assert ours.similarity_fn_name == theirs.similarity_fn_name == "dot"
    assert (ours.prompts, ours.default_prompt_name) == (theirs.prompts, theirs.default_prompt_name)


def test_a_reranker_keeps_its_settings(client, reranker, monkeypatch):
    ours = CrossEncoder(client=client, **RERANK_SETTINGS)
    for name, value in RERANK_SETTINGS.items():
        assert getattr(ours, name) == value
        monkeypatch.setattr(reranker, name, value)
    assert_same(ours.predict(PAIRS), reranker.predict(PAIRS))
    assert_same(ours.predict(PAIRS, prompt=""), reranker.predict(PAIRS, prompt=""))
    assert_same(ours.rank(QUERY, TEXTS), reranker.rank(QUERY, TEXTS))


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("method", ["similarity", "similarity_pairwise"])
def test_similarities_are_those_of_the_library(name, method, our_embedder, embedder, monkeypatch):
    for model in (our_embedder, embedder):
        monkeypatch.setattr(model, "similarity_fn_name", library.SimilarityFunction(name))
    ours, theirs = getattr(our_embedder, method), getattr(embedder, method)
    a, b = np.random.default_rng(0).standard_normal((2, 5, 64), dtype=np.float32)
    assert_same(ours(a, b), theirs(a, b).numpy())
    assert_same(ours(a[0], b[0]), theirs(a[0], b[0]).numpy())
    assert_same(ours(torch.tensor(a), list(b)), theirs(torch.tensor(a), list(b)))
    assert_same(ours(list(torch.tensor(a)), b), theirs(list(torch.tensor(a)), b))


def test_tensors_are_put_where_they_are_wanted(our_embedder, our_reranker):
    options = {"convert_to_tensor": True, "device": "meta"}
    assert our_embedder.encode(TEXTS, **options).device == torch.device("meta")
    assert our_reranker.predict(PAIRS, **options).device == torch.device("meta")


def test_a_text_that_is_empty_is_refused(our_embedder, our_reranker):
    with pytest.raises(InvalidRequestError):
        our_embedder.encode(["a text", ""])
    with pytest.raises(InvalidRequestError):
        our_reranker.predict([(QUERY, " ")])


def test_what_is_told_of_the_model_is_what_the_library_tells(our_embedder, embedder, our_reranker, reranker):
    assert our_embedder.prompts == embedder.prompts
    assert our_embedder.similarity_fn_name == embedder.similarity_fn_name
    assert our_embedder.get_embedding_dimension() == embedder.get_embedding_dimension()
    with pytest.warns(FutureWarning):
        assert our_embedder.get_sentence_embedding_dimension() == embedder.get_sentence_embedding_dimension()
    for ours, theirs in ((our_embedder, embedder), (our_reranker, reranker)):
        assert ours.max_seq_length == ours.get_max_seq_length() == theirs.get_max_seq_length()
    assert our_reranker.num_labels == reranker.num_labels
    ours, theirs = our_embedder.tokenize(TEXTS), embedder.tokenize(TEXTS)
    for name, ids in ours.items():
        assert np.array_equal(ids, theirs[name])
