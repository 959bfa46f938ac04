import numpy as np
import pytest

from qwen3.inference.v1 import embedding_pb2, model_pb2
from qwen3_client import RevisionChangedError
from qwen3_client.results import decode_embeddings, decode_model

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
    result = decode_embeddings([response(encoding, embeddings)])
    assert result.vectors.dtype == dtype
    assert result.vectors.tolist() == VALUES.tolist()
    assert result.scales is None


def test_int8_comes_back_with_one_scale_a_vector():
    embeddings = [
        embedding_pb2.Embedding(packed=np.array([127, -128, 0], dtype="i1").tobytes(), scale=0.5),
        embedding_pb2.Embedding(packed=np.array([1, 2, 3], dtype="i1").tobytes(), scale=0.25),
    ]
    result = decode_embeddings([response(embedding_pb2.VECTOR_ENCODING_INT8, embeddings)])
    assert result.vectors.dtype == np.int8
    assert (result.vectors * result.scales[:, None]).tolist() == [[63.5, -64, 0], [0.25, 0.5, 0.75]]


def test_binary_comes_back_as_sign_bits_most_significant_first():
    embeddings = [embedding_pb2.Embedding(packed=bytes([0b10110000, 0b01000000]))]
    result = decode_embeddings([response(embedding_pb2.VECTOR_ENCODING_BINARY, embeddings, dimensions=10)])
    assert (result.vectors.dtype, result.vectors.shape) == (np.uint8, (1, 2))
    assert np.unpackbits(result.vectors, axis=1, count=10).tolist() == [[1, 0, 1, 1, 0, 0, 0, 0, 0, 1]]


def test_float_lists_come_back_by_value():
    embeddings = [embedding_pb2.Embedding(values=row.tolist()) for row in VALUES]
    result = decode_embeddings([response(embedding_pb2.VECTOR_ENCODING_FLOAT_LIST, embeddings)])
    assert result.vectors.dtype == np.float32
    assert result.vectors.tolist() == VALUES.tolist()


def test_several_responses_become_one_array_that_can_be_written_to():
    encoding = embedding_pb2.VECTOR_ENCODING_FLOAT32
    responses = [
        response(encoding, [embedding_pb2.Embedding(packed=row.astype("<f4").tobytes(), token_count=2, truncated=cut)])
        for row, cut in zip(VALUES, (False, True), strict=True)
    ]
    result = decode_embeddings(responses)
    assert result.vectors.tolist() == VALUES.tolist()
    assert (result.token_counts, result.truncated) == ((2, 2), (False, True))
    result.vectors[0, 0] = 7


def test_vectors_of_two_revisions_are_never_mixed():
    encoding = embedding_pb2.VECTOR_ENCODING_FLOAT32
    embeddings = [embedding_pb2.Embedding(packed=bytes(12))]
    with pytest.raises(RevisionChangedError, match="embed again"):
        decode_embeddings([response(encoding, embeddings), response(encoding, embeddings, revision="r2")])


def test_what_a_newer_server_adds_is_unknown_and_not_an_error():
    model = decode_model(model_pb2.Model(id="m", task=9, state=9, encodings=[1, 9]))
    assert (model.task, model.state, model.encodings) == ("unknown", "unknown", ("float32", "unknown"))
