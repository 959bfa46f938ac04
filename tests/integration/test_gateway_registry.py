"""Models come and go: which of them, and which revision, calls go to, and what is told of them."""

import contextlib

import grpc
import pytest

from jobqueue.announcements import announce, tokenizer_digest
from jobqueue.connection import connect
from jobqueue.messages import Operation
from qwen3.inference.v1 import embedding_pb2, model_pb2
from tests.support.echo import EchoWorker, announcement, eventually, tokenizer_json
from tests.support.processes import gateway
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import TIMEOUT_S, Stubs, refusal


@pytest.fixture
def redis_url():
    with redis_server(embedded_binary()) as url:
        yield url


@pytest.fixture
def start(redis_url):
    """Start a gateway; its stubs."""
    with contextlib.ExitStack() as stack:

        def enter(*options: str) -> Stubs:
            _, address = stack.enter_context(gateway(redis_url, *options))
            stubs = Stubs(address)
            stack.callback(stubs.channel.close)
            return stubs

        yield enter


def announce_all(redis_url: str, *announcements) -> None:
    """Known, with no worker."""
    with connect(redis_url) as client:
        for one in announcements:
            announce(client, one, tokenizer_json(one.operation))


def model(stubs: Stubs, id_: str) -> model_pb2.Model:
    return stubs.models.GetModel(model_pb2.GetModelRequest(id=id_), timeout=TIMEOUT_S).model


def served(stubs: Stubs) -> list[str]:
    response = stubs.models.ListModels(model_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
    return [found.id for found in response.models]


def await_state(stubs: Stubs, id_: str, state: str) -> None:
    expected = model_pb2.ModelState.Value(f"MODEL_STATE_{state}")
    eventually(lambda: model(stubs, id_).state == expected)


def refused(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return refusal(caught.value)


def embed_later(stubs: Stubs) -> grpc.Future:
    message = embedding_pb2.EmbedRequest(config=embedding_pb2.EmbedConfig(), inputs=["text"])
    return stubs.embedding.Embed.future(message, timeout=TIMEOUT_S)


def test_with_nothing_announced_calls_are_unavailable(start):
    stubs = start()
    assert served(stubs) == []
    for call in (lambda: stubs.embed(["text"]), lambda: stubs.rerank_documents("q", ["d"])):
        found = refused(call)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")


def test_a_model_appears_while_the_gateway_runs(start, redis_url):
    stubs = start()
    with EchoWorker(redis_url, "emb"):
        eventually(lambda: served(stubs) == ["emb"])
        assert stubs.embed(["text"]).model == "emb"


def test_a_model_without_a_worker_is_unavailable_at_once(start, redis_url):
    with EchoWorker(redis_url, "emb") as worker:
        stubs = start()
        await_state(stubs, "emb", "READY")
    await_state(stubs, "emb", "UNAVAILABLE")
    found = refused(stubs.embed, ["text"])
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert found.retry_s == 1.0
    assert found.trailers["grpc-retry-pushback-ms"] == "1000"
    with connect(redis_url) as client:
        assert client.xlen(worker.keys.lane("hi")) == 0


def test_a_worker_that_dies_without_a_word_is_noticed_by_its_lease(start, redis_url):
    announce_all(redis_url, announcement("emb"))
    with connect(redis_url) as client:
        now_ms = int(client.time()[0]) * 1000
        client.zadd("{q:emb@r1}:workers", {"a worker": now_ms + 600_000})
        stubs = start()
        assert model(stubs, "emb").state == model_pb2.MODEL_STATE_READY
        client.zadd("{q:emb@r1}:workers", {"a worker": now_ms - 1})
        await_state(stubs, "emb", "UNAVAILABLE")


def test_a_call_wakes_a_wakeable_model(start, redis_url):
    with EchoWorker(redis_url, "emb", wakeable=True):
        stubs = start()
        await_state(stubs, "emb", "READY")
    await_state(stubs, "emb", "UNAVAILABLE")
    call = embed_later(stubs)
    with connect(redis_url) as client:
        eventually(lambda: client.xlen("{q:emb@r1}:hi") == 1)
    assert not call.done()
    with EchoWorker(redis_url, "emb", wakeable=True):
        assert len(call.result().embeddings) == 1


def test_a_call_waits_for_a_loading_model(start, redis_url):
    worker = EchoWorker(redis_url, "emb").load()
    try:
        stubs = start()
        assert model(stubs, "emb").state == model_pb2.MODEL_STATE_LOADING
        call = embed_later(stubs)
        eventually(lambda: worker.num_queued() == 1)
        assert not call.done()
        worker.start()
        assert len(call.result().embeddings) == 1
        await_state(stubs, "emb", "READY")
    finally:
        worker.stop()


def test_calls_move_to_a_new_revision_once_its_workers_live(start, redis_url):
    with EchoWorker(redis_url, "emb", revision="old"):
        stubs, pinned = start(), start("--pin", "emb@old")
        assert stubs.embed(["text"]).model_revision == "old"
        newer = EchoWorker(redis_url, "emb", revision="new").load()
        try:
            assert stubs.embed(["text"]).model_revision == "old"
            newer.start()
            eventually(lambda: model(stubs, "emb").revision == "new")
            assert stubs.embed(["text"]).model_revision == "new"
            assert pinned.embed(["text"]).model_revision == "old"
        finally:
            newer.stop()
        eventually(lambda: model(stubs, "emb").revision == "old")
        assert stubs.embed(["text"]).model_revision == "old"


def test_a_model_pinned_to_what_nobody_announced_is_not_served(start, redis_url):
    with EchoWorker(redis_url, "emb"):
        stubs = start("--pin", "emb@other")
        assert served(stubs) == []


def test_with_several_models_one_must_be_named(start, redis_url):
    with EchoWorker(redis_url, "one"), EchoWorker(redis_url, "two"):
        stubs = start()
        found = refused(stubs.embed, ["text"])
        assert (found.code, found.field) == (grpc.StatusCode.INVALID_ARGUMENT, "config.model")
        assert stubs.embed(["text"], model="two").model == "two"
        assert not any(model(stubs, id_).default_for_task for id_ in ("one", "two"))


def test_with_several_models_a_setting_says_which_is_meant(start, redis_url):
    with (
        EchoWorker(redis_url, "one"),
        EchoWorker(redis_url, "two"),
        EchoWorker(redis_url, "three", Operation.RERANK),
        EchoWorker(redis_url, "four", Operation.RERANK),
    ):
        stubs = start("--default-embedding-model", "two", "--default-rerank-model", "three")
        assert stubs.embed(["text"]).model == "two"
        assert stubs.rerank_documents("q", ["d"]).model == "three"
        assert [id_ for id_ in served(stubs) if model(stubs, id_).default_for_task] == ["three", "two"]


def test_pages_are_stable_and_end(start, redis_url):
    ids = [f"model-{number}" for number in range(5)]
    announce_all(redis_url, *(announcement(id_) for id_ in ids))
    stubs = start()
    pages, token = [], ""
    while True:
        message = model_pb2.ListModelsRequest(page_size=2, page_token=token)
        response = stubs.models.ListModels(message, timeout=TIMEOUT_S)
        pages.append([found.id for found in response.models])
        token = response.next_page_token
        if not token:
            break
    assert pages == [ids[:2], ids[2:4], ids[4:]]
    with pytest.raises(grpc.RpcError) as caught:
        stubs.models.ListModels(model_pb2.ListModelsRequest(page_size=-1), timeout=TIMEOUT_S)
    assert refusal(caught.value).field == "page_size"


def test_a_model_whose_tokenizer_is_gone_hides_no_other(start, redis_url):
    announce_all(redis_url, announcement("bad", tokenizer_digest="0" * 32))
    with connect(redis_url) as client:
        client.delete("tokenizer:" + "0" * 32)
    with EchoWorker(redis_url, "good"):
        stubs = start()
        assert served(stubs) == ["good"]
        assert stubs.embed(["text"]).model == "good"


def test_a_model_whose_tokenizer_this_gateway_cannot_read_hides_no_other(start, redis_url):
    newer = b'{"version": "9.0"}'
    with connect(redis_url) as client:
        announce(client, announcement("newer", tokenizer_digest=tokenizer_digest(newer)), newer)
    with EchoWorker(redis_url, "good"):
        stubs = start()
        assert served(stubs) == ["good"]
        assert stubs.embed(["text"]).model == "good"
