import pytest
from google.rpc.error_details_pb2 import BadRequest
from hypothesis import given
from hypothesis import strategies as st

from qwen3.inference.v1 import embedding_pb2
from qwen3_client import (
    InvalidRequestError,
    RevisionChangedError,
    ServerFaultError,
)
from qwen3_client.batches import Batch
from qwen3_client.bulk import MAX_CHUNKS, Bulk


def answer(chunk_id, revision="r1"):
    """One whose vector is its id."""
    embedding = embedding_pb2.Embedding(packed=bytes([chunk_id]))
    result = embedding_pb2.EmbedResponse(embeddings=[embedding], model_revision=revision, encoding=3)
    return embedding_pb2.EmbedStreamResponse(chunk_id=chunk_id, result=result)


def failure(chunk_id, field):
    error = embedding_pb2.ChunkError(code=3, message=f"{field}: no")
    error.details.add().Pack(BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description="no")]))
    return embedding_pb2.EmbedStreamResponse(chunk_id=chunk_id, error=error)


def batch(number):
    return Batch(texts=[f"a{number}", f"b{number}"], first=2 * number)


def bulk_of(number):
    bulk = Bulk(embedding_pb2.EmbedConfig(model="m"), request_id="mine")
    for place in range(number):
        bulk.add(batch(place))
    return bulk


def ids(messages):
    return [message.chunk.chunk_id for message in messages if message.HasField("chunk")]


@given(st.permutations(range(8)), st.integers(0, 8))
def test_answers_in_any_order_are_handed_out_in_that_of_the_texts(order, num_before):
    bulk, found = bulk_of(8), []
    for chunk_id in order[:num_before]:
        bulk.accept(answer(chunk_id))
        found += [result.vectors[0, 0] for result in bulk.results()]
    again = ids(bulk.opening())
    assert again == sorted(order[num_before:])
    for chunk_id in again:
        bulk.accept(answer(chunk_id))
    found += [result.vectors[0, 0] for result in bulk.results()]
    assert found == list(range(8))
    assert not bulk.is_waiting


def test_a_stream_begins_with_the_config():
    assert bulk_of(1).opening()[0].config.model == "m"


def test_there_is_room_until_so_many_chunks_are_not_handed_out():
    bulk = bulk_of(MAX_CHUNKS - 1)
    assert bulk.has_room
    bulk.add(batch(MAX_CHUNKS - 1))
    assert not bulk.has_room
    bulk.accept(answer(1))
    assert not bulk.has_room
    bulk.accept(answer(0))
    assert not bulk.has_room
    next(bulk.results())
    assert bulk.has_room


def test_an_answer_that_was_not_asked_or_comes_twice_is_the_servers_fault():
    bulk = bulk_of(1)
    with pytest.raises(ServerFaultError, match="chunk 7"):
        bulk.accept(answer(7))
    bulk.accept(answer(0))
    with pytest.raises(ServerFaultError, match="chunk 0"):
        bulk.accept(answer(0))


def test_a_revision_that_changes_between_chunks_is_an_error():
    bulk = bulk_of(2)
    bulk.accept(answer(1))
    with pytest.raises(RevisionChangedError):
        bulk.accept(answer(0, revision="r2"))


def test_a_chunk_that_failed_is_the_error_of_a_call_with_places_of_the_whole():
    with pytest.raises(InvalidRequestError, match=r"inputs\[3\]: no") as caught:
        bulk_of(2).accept(failure(1, "inputs[1]"))
    assert caught.value.field_violations == (("inputs[3]", "no"),)
    assert caught.value.request_id == "mine"


def test_a_chunk_that_is_too_much_is_sent_again_in_halves_which_keep_its_place():
    bulk = bulk_of(3)
    halves = bulk.accept(failure(1, "inputs"))
    assert [list(half.chunk.inputs) for half in halves] == [["a1"], ["b1"]]
    assert bulk.opening()[1:] == [*bulk_of(3).opening()[1::2], *halves]
    for chunk_id in (0, *ids(halves), 2):
        assert bulk.accept(answer(chunk_id)) == []
    assert [result.vectors[0, 0] for result in bulk.results()] == [0, *ids(halves), 2]


def test_a_text_that_is_too_much_by_itself_fails_the_whole():
    bulk = bulk_of(1)
    for half in bulk.accept(failure(0, "inputs")):
        with pytest.raises(InvalidRequestError):
            bulk.accept(failure(half.chunk.chunk_id, "inputs"))
