import numpy as np
import pytest

from qwen3.inference.v1 import embedding_pb2, model_pb2, rerank_pb2
from qwen3_client import RevisionChangedError
from qwen3_client.batches import Batch
from qwen3_client.results import check_same_revision, decode_embeddings, decode_hits, decode_model, joined

VALUES = np.array([[0.5, -0.25, 1.0], [-1.0, 0.0, 0.125]])


def response(encoding, embeddings, dimensions=3, revision="r1"):
    return embedding_pb2.EmbedResponse(
        embeddings=embeddings, encoding=encoding, dimensions=dimensions, model="m", model_revision=revision
    )


@pytest.mark.parametrize(
    ("encoding", "wire_dtype", "dtype"),
    [
        (embedding_pb2.VECTOR_ENCODING_FLOAT32, "<f4", np.float32),
        (embedding_pb2.VECTOR_ENCODING_FLOAT16, "<f2", np.float16),
    ],
)
def test_packed_floats_come_back_by_value(encoding, wire_dtype, dtype):
    embeddings = [embedding_pb2.Embedding(packed=row.astype(wire_dtype).tobytes()) for row in VALUES]
    result = decode_embeddings(response(encoding, embeddings))
    assert result.vectors.dtype == dtype
    assert result.vectors.tolist() == VALUES.tolist()
    assert result.scales is None


def test_int8_comes_back_with_one_scale_a_vector():
    embeddings = [
        embedding_pb2.Embedding(packed=np.array([127, -128, 0], dtype="i1").tobytes(), scale=0.5),
        embedding_pb2.Embedding(packed=np.array([1, 2, 3], dtype="i1").tobytes(), scale=0.25),
    ]
    result = decode_embeddings(response(embedding_pb2.VECTOR_ENCODING_INT8, embeddings))
    assert result.vectors.dtype == np.int8
    assert (result.vectors * result.scales[:, None]).tolist() == [[63.5, -64, 0], [0.25, 0.5, 0.75]]


def test_binary_comes_back_as_sign_bits_most_significant_first():
    embeddings = [embedding_pb2.Embedding(packed=bytes([0b10110000, 0b01000000]))]
    result = decode_embeddings(response(embedding_pb2.VECTOR_ENCODING_BINARY, embeddings, dimensions=10))
    assert (result.vectors.dtype, result.vectors.shape) == (np.uint8, (1, 2))
    assert np.unpackbits(result.vectors, axis=1, count=10).tolist() == [[1, 0, 1, 1, 0, 0, 0, 0, 0, 1]]


def test_an_array_can_be_written_to():
    encoding = embedding_pb2.VECTOR_ENCODING_FLOAT32
    decode_embeddings(response(encoding, [embedding_pb2.Embedding(packed=bytes(12))])).vectors[0, 0] = 7


@pytest.mark.parametrize("encoding", [embedding_pb2.VECTOR_ENCODING_FLOAT32, embedding_pb2.VECTOR_ENCODING_INT8])
def test_parts_are_joined_in_order(encoding):
    parts = [
        decode_embeddings(
            response(encoding, [embedding_pb2.Embedding(packed=bytes([0, 0, 0, number]), scale=number, token_count=2)])
        )
        for number in (1, 2)
    ]
    result = joined(parts)
    assert result.vectors.tolist() == [part.vectors[0].tolist() for part in parts]
    assert result.token_counts == (2, 2)
    if result.scales is not None:
        assert result.scales.tolist() == [1, 2]


def test_every_encoding_but_binary_can_be_read_as_float32():
    embedding = embedding_pb2.Embedding(packed=np.array([127, -128, 0], dtype="i1").tobytes(), scale=0.5)
    result = decode_embeddings(response(embedding_pb2.VECTOR_ENCODING_INT8, [embedding]))
    assert result.as_float32().dtype == np.float32
    assert result.as_float32().tolist() == [[63.5, -64, 0]]
    half = embedding_pb2.Embedding(packed=VALUES[0].astype("<f2").tobytes())
    assert decode_embeddings(response(embedding_pb2.VECTOR_ENCODING_FLOAT16, [half])).as_float32().dtype == np.float32
    binary = embedding_pb2.Embedding(packed=b"x")
    with pytest.raises(ValueError, match="hamming"):
        decode_embeddings(response(embedding_pb2.VECTOR_ENCODING_BINARY, [binary])).as_float32()


def ranked(first, *scores):
    results = [rerank_pb2.RerankResult(index=index, score=score) for index, score in scores]
    return Batch(texts=["text"] * len(scores), first=first), rerank_pb2.RerankResponse(results=results)


def test_documents_are_ranked_over_all_answers():
    answers = [ranked(0, (0, 0.5), (1, 0.25)), ranked(2, (1, 0.75), (0, 0.5))]
    assert [hit.index for hit in decode_hits(answers, None, top_n=0)] == [3, 0, 2, 1]
    assert [(hit.index, hit.document) for hit in decode_hits(answers, "abcd", top_n=2)] == [(3, "d"), (0, "a")]


def test_what_the_server_tells_apart_by_more_than_the_score_keeps_its_order():
    answer = ranked(0, (1, 1.0), (0, 1.0))  # of two logits that are one probability
    assert [hit.index for hit in decode_hits([answer], None, top_n=0)] == [1, 0]


def test_vectors_of_two_revisions_are_never_mixed():
    first, other = (embedding_pb2.EmbedResponse(model="m", model_revision=name) for name in ("r1", "r2"))
    check_same_revision(first, first)
    with pytest.raises(RevisionChangedError, match="call again"):
        check_same_revision(first, other)


def test_scores_of_two_revisions_are_never_mixed():
    answers = [ranked(0, (0, 0.5)), ranked(1, (0, 0.5))]
    answers[1][1].model_revision = "r2"
    with pytest.raises(RevisionChangedError, match="call again"):
        decode_hits(answers, None, top_n=0)


def test_what_a_newer_server_adds_is_unknown_and_not_an_error():
    model = decode_model(model_pb2.Model(id="m", task=9, state=9, encodings=[1, 9]))
    assert (model.task, model.state, model.encodings) == ("unknown", "unknown", ("float32", "unknown"))
