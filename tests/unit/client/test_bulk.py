import pytest
from google.rpc.error_details_pb2 import BadRequest
from hypothesis import given
from hypothesis import strategies as st

from qwen3.inference.v1 import embedding_pb2
from qwen3_client import (
    CallCancelledError,
    InvalidRequestError,
    RevisionChangedError,
    ServerFaultError,
    UnavailableError,
)
from qwen3_client.bulk import MAX_CHUNKS, Bulk, Patience


def answer(chunk_id, revision="r1"):
    """One whose vector is its id."""
    embedding = embedding_pb2.Embedding(packed=bytes([chunk_id]))
    result = embedding_pb2.EmbedResponse(embeddings=[embedding], model_revision=revision, encoding=3)
    return embedding_pb2.EmbedStreamResponse(chunk_id=chunk_id, result=result)


def bulk_of(number):
    bulk = Bulk(embedding_pb2.EmbedConfig(model="m"))
    for _ in range(number):
        bulk.add(["text", "text"])
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
    bulk.add(["text"])
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
    error = embedding_pb2.ChunkError(code=3, message="inputs[1]: is empty")
    violation = BadRequest.FieldViolation(field="inputs[1]", description="is empty")
    error.details.add().Pack(BadRequest(field_violations=[violation]))
    with pytest.raises(InvalidRequestError, match=r"inputs\[3\]: is empty") as caught:
        bulk_of(2).accept(embedding_pb2.EmbedStreamResponse(chunk_id=1, error=error))
    assert caught.value.field_violations == (("inputs[3]", "is empty"),)


def test_the_first_wait_is_what_the_server_asks_for_and_later_ones_grow():
    patience = Patience(60)
    gone = UnavailableError("gone", retry_after_s=0.0)
    waits = [patience.wait_s(gone) for _ in range(4)]
    assert waits[0] == 0
    assert 0 < waits[1] < waits[2] < waits[3]
    patience.renew()
    assert patience.wait_s(gone) == 0


def test_a_server_that_asks_for_more_gets_more():
    patience = Patience(60)
    busy = UnavailableError("busy", retry_after_s=7.0)
    assert [patience.wait_s(busy) for _ in range(3)] == [7, 7, 7]


def test_waits_end_with_the_timeout():
    patience = Patience(3)
    with pytest.raises(UnavailableError):  # noqa: PT012 - how many it takes is not the point
        while True:
            patience.wait_s(UnavailableError("gone"))
    patience.renew()
    patience.spend(2.9)
    with pytest.raises(UnavailableError):
        patience.wait_s(UnavailableError("gone", retry_after_s=0.2))


def test_only_what_was_not_begun_is_begun_again():
    patience = Patience(60)
    assert patience.wait_s(CallCancelledError("the server stopped")) > 0
    with pytest.raises(InvalidRequestError):
        patience.wait_s(InvalidRequestError("no"))
    with pytest.raises(ServerFaultError):
        patience.wait_s(ServerFaultError("no"))
