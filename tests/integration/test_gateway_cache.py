"""A gateway that keeps answers: what reaches the worker of what is asked."""

import contextlib
import itertools

import grpc
import pytest

from gateway.identity.api_keys import ApiKey
from jobqueue.connection import connect
from jobqueue.keys import QueueKeys
from jobqueue.lanes import Lane
from jobqueue.messages import Failure, FailureReason, Operation, VectorEncoding
from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, rerank_pb2
from tests.support.echo import EchoWorker, eventually
from tests.support.processes import gateway
from tests.support.wire import TIMEOUT_S, Stubs, refusal

EMBED, RERANK = "org/embed", "org/rerank"
DEFAULT = ("--default-embedding-model", EMBED)
KEYS = {name: ApiKey.new() for name in ("one", "other")}
ACCESS = "".join(
    f'[tenants.{name}]\nmodels = ["*"]\nkeys.{key.id} = {{ sha256 = "{key.sha256}" }}\n' for name, key in KEYS.items()
)
MARKER = "xyzzy plugh plover"

_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared_embedder(redis_url):
    with EchoWorker(redis_url, EMBED) as worker:
        yield worker


@pytest.fixture
def embedder(shared_embedder):
    """With none of its jobs before."""
    shared_embedder.jobs.clear()
    yield shared_embedder
    shared_embedder.release()


@contextlib.contextmanager
def caching(redis_url: str, *options: str, cache: str = "*"):
    """A gateway that keeps answers: its process and its stubs."""
    with gateway(redis_url, *DEFAULT, "--cache", cache, *options) as (process, address):
        stubs = Stubs(address)
        yield process, stubs
        stubs.channel.close()


@pytest.fixture(scope="module")
def served(redis_url, shared_embedder):
    with caching(redis_url) as found:
        yield found


@pytest.fixture
def stubs(served):
    return served[1]


def new_texts(number: int = 3) -> list[str]:
    """That nobody has asked for."""
    return [f"重力 text {next(_numbers)}" for _ in range(number)]


def num_sequences(worker: EchoWorker) -> int:
    """Those that the worker has been given."""
    return sum(len(job.tails) for _, job in worker.jobs)


def embed_later(stubs: Stubs, *texts: str, timeout_s: float = TIMEOUT_S, **config) -> grpc.Future:
    config = embedding_pb2.EmbedConfig(**config)
    return stubs.embedding.Embed.future(embedding_pb2.EmbedRequest(config=config, inputs=texts), timeout=timeout_s)


def embed_as(stubs: Stubs, tenant: str, texts: list[str]) -> embedding_pb2.EmbedResponse:
    message = embedding_pb2.EmbedRequest(config=embedding_pb2.EmbedConfig(), inputs=texts)
    metadata = [("authorization", f"Bearer {KEYS[tenant].reveal()}")]
    return stubs.embedding.Embed(message, timeout=TIMEOUT_S, metadata=metadata)


def num_tokens(response: embedding_pb2.EmbedResponse, *places: int) -> int:
    return sum(response.embeddings[place].token_count for place in places)


def served_models(stubs: Stubs) -> set[str]:
    return {model.id for model in stubs.models.ListModels(model_pb2.ListModelsRequest(), timeout=TIMEOUT_S).models}


def test_nothing_is_kept_or_shared_unless_the_model_is_named(redis_url, embedder):
    text, *_ = new_texts()
    cache = QueueKeys(f"{EMBED}@r1").of_cache
    with connect(redis_url) as client:
        before = [client.exists(key) and client.dump(key) for key in cache]
        for options in ([], ["--cache", RERANK]):
            with gateway(redis_url, *DEFAULT, *options) as (_, address):
                stubs = Stubs(address)
                answers = [stubs.embed([text, text]) for _ in range(3)]
                stubs.channel.close()
            assert all(answer.usage.computed_tokens == answer.usage.input_tokens for answer in answers)
        assert [client.exists(key) and client.dump(key) for key in cache] == before
    assert num_sequences(embedder) == 2 * 3 * 2


def test_a_repeated_call_is_answered_without_the_worker(stubs, embedder):
    texts = new_texts()
    first = stubs.embed(texts)
    embedder.hold()
    again = stubs.embed(texts)
    assert again.embeddings == first.embeddings
    assert (first.usage.computed_tokens, again.usage.computed_tokens) == (first.usage.input_tokens, 0)
    assert again.usage.input_tokens == first.usage.input_tokens
    assert (again.timing.queue_us, again.timing.compute_us) == (0, 0)
    assert again.timing.tokenize_us > 0
    assert num_sequences(embedder) == 3


def test_only_what_is_new_in_a_call_reaches_the_worker(stubs, embedder):
    texts, (new, newer, _) = new_texts(), new_texts()
    first = stubs.embed(texts)
    mixed = stubs.embed([new, texts[2], newer, texts[0], new])
    assert num_sequences(embedder) == 3 + 2
    assert [mixed.embeddings[place] for place in (1, 3)] == [first.embeddings[place] for place in (2, 0)]
    assert mixed.embeddings[4] == mixed.embeddings[0] != mixed.embeddings[2]
    assert mixed.usage.computed_tokens == num_tokens(mixed, 0, 2)
    assert mixed.usage.input_tokens == num_tokens(mixed, *range(5))
    assert mixed.timing.compute_us > 0


def test_queries_behind_one_instruction_are_kept_one_by_one(stubs, embedder):
    (one, other, third), query = new_texts(), embedding_pb2.INPUT_TYPE_QUERY
    first = stubs.embed([one, other], input_type=query)
    mixed = stubs.embed([other, third], input_type=query)
    (_, job) = embedder.jobs[-1]
    assert (len(job.prefix) > 10, len(job.tails)) == (True, 1)
    assert mixed.embeddings[0] == first.embeddings[1]
    assert stubs.embed([other]).embeddings[0] != first.embeddings[1]


@pytest.mark.parametrize("encoding", VectorEncoding)
def test_what_is_kept_is_what_was_computed_bit_by_bit(stubs, embedder, encoding):
    texts = new_texts()
    first = stubs.embed(texts, encoding=int(encoding), dimensions=33)
    embedder.hold()
    assert stubs.embed(texts, encoding=int(encoding), dimensions=33).embeddings == first.embeddings
    for place in (2, 0, 1):
        assert stubs.embed([texts[place]], encoding=int(encoding), dimensions=33).embeddings == [
            first.embeddings[place]
        ]


def test_what_is_asked_otherwise_is_computed(stubs, embedder):
    texts = new_texts()
    others = [VectorEncoding.FLOAT16, VectorEncoding.INT8, VectorEncoding.BINARY, VectorEncoding.FLOAT_LIST]
    configs = [{}, {"dimensions": 32}, {"normalize": False}, *({"encoding": int(encoding)} for encoding in others)]
    for number, config in enumerate(configs, start=1):
        stubs.embed(texts, **config)
        assert num_sequences(embedder) == 3 * number
    stubs.embed(texts, encoding=int(VectorEncoding.FLOAT32), normalize=True, dimensions=64)  # what is meant by nothing
    assert num_sequences(embedder) == 3 * len(configs)


def test_scores_are_kept_too(redis_url, stubs):
    texts = new_texts()
    with EchoWorker(redis_url, RERANK, Operation.RERANK) as worker:
        order = rerank_pb2.RERANK_ORDER_INPUT
        eventually(lambda: RERANK in served_models(stubs))
        first = stubs.rerank_documents("query", texts, order=order)
        again = stubs.rerank_documents("query", texts, order=order)
        assert (again.results, again.usage.computed_tokens) == (first.results, 0)
        mixed = stubs.rerank_documents("query", [texts[1], "new", texts[0]], order=order)
        assert [mixed.results[place].score for place in (0, 2)] == [first.results[place].score for place in (1, 0)]
        assert num_sequences(worker) == 3 + 1
        stubs.rerank_documents("another", texts)
        assert num_sequences(worker) == 3 + 1 + 3


def test_texts_of_a_stream_are_answered_from_calls(stubs, embedder):
    texts = new_texts()
    first = stubs.embed(texts)
    requests = [
        embedding_pb2.EmbedStreamRequest(config=embedding_pb2.EmbedConfig()),
        embedding_pb2.EmbedStreamRequest(chunk=embedding_pb2.EmbedChunk(chunk_id=7, inputs=[*texts, *new_texts(1)])),
    ]
    (answer,) = stubs.embedding.EmbedStream(iter(requests), timeout=TIMEOUT_S)
    assert list(answer.result.embeddings)[:3] == list(first.embeddings)
    assert num_sequences(embedder) == 3 + 1


def test_every_gateway_answers_from_what_others_have_kept(redis_url, stubs, embedder):
    texts = new_texts()
    first = stubs.embed(texts)
    assert stubs.embed(texts).usage.computed_tokens == 0
    with caching(redis_url) as (_, other):
        assert other.embed(texts).embeddings == first.embeddings
    assert num_sequences(embedder) == 3


def test_the_same_text_in_flight_is_computed_once(stubs, embedder):
    (text,) = new_texts(1)
    embedder.hold()
    calls = [embed_later(stubs, text) for _ in range(20)]
    calls += [embed_later(stubs, text, text) for _ in range(5)]
    eventually(lambda: embedder.num_queued() == 1)
    embedder.release()
    answers = [call.result() for call in calls]
    assert len({embedding.packed for answer in answers for embedding in answer.embeddings}) == 1
    assert num_sequences(embedder) == 1
    assert [answer.usage.computed_tokens > 0 for answer in answers].count(True) == 1


def test_those_who_wait_for_a_client_that_leaves_are_answered(redis_url, stubs, embedder):
    (text,) = new_texts(1)
    embedder.hold()
    leader = embed_later(stubs, text)
    with connect(redis_url) as client:

        def queued() -> list[bytes]:
            return [entry_id for entry_id, _ in client.xrange(embedder.keys.lane(Lane.INTERACTIVE.key))]

        eventually(lambda: len(queued()) == 1)
        before = queued()
        followers = [embed_later(stubs, text) for _ in range(10)]
        leader.cancel()
        eventually(lambda: len(queued()) == 1 and queued() != before)
    embedder.release()
    answers = [follower.result() for follower in followers]
    assert len({answer.embeddings[0].packed for answer in answers}) == 1
    assert [answer.usage.computed_tokens > 0 for answer in answers].count(True) == 1


def test_those_who_wait_for_a_client_whose_time_is_up_have_theirs(stubs, embedder):
    (text,) = new_texts(1)
    embedder.hold()
    leader = embed_later(stubs, text, timeout_s=1.0)
    follower = embed_later(stubs, text)
    assert leader.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    embedder.release()
    assert len(follower.result().embeddings) == 1


def test_an_interactive_call_does_not_wait_for_a_bulk_one(stubs, embedder):
    (text,) = new_texts(1)
    embedder.hold()
    calls = [embed_later(stubs, text, priority=found) for found in (common_pb2.PRIORITY_BULK, 0)]
    eventually(lambda: embedder.num_queued() == 2)
    embedder.release()
    bulk, interactive = [call.result() for call in calls]
    assert bulk.embeddings == interactive.embeddings
    assert {taken.lane for taken, _ in embedder.jobs} == set(Lane)


def test_a_failure_names_the_text_as_the_call_counts_and_is_not_kept(stubs, embedder):
    texts, (new, bad) = new_texts(), new_texts(2)
    stubs.embed(texts)
    embedder.answer = Failure(reason=FailureReason.NON_FINITE_RESULT, message="not a number", sequence=1)
    with pytest.raises(grpc.RpcError) as caught:
        stubs.embed([texts[0], new, texts[1], new, bad])
    embedder.answer = None
    found = refusal(caught.value)
    assert found.reason == "NON_FINITE_RESULT"
    assert found.message.startswith("inputs[4]")
    before = num_sequences(embedder)
    stubs.embed([new, bad])
    assert num_sequences(embedder) == before + 2


def test_a_new_revision_does_not_answer_from_the_old_one(redis_url, stubs):
    texts = new_texts()
    with EchoWorker(redis_url, "org/revised") as older:
        eventually(lambda: "org/revised" in served_models(stubs))
        stubs.embed(texts, model="org/revised")
        with EchoWorker(redis_url, "org/revised", revision="r2") as newer:
            eventually(lambda: stubs.embed(texts, model="org/revised").model_revision == "r2")
            assert (num_sequences(older), num_sequences(newer)) == (3, 3)


@pytest.mark.parametrize("changed", [{"dtype": "bfloat16"}, {"engine": "other"}])
def test_another_dtype_or_engine_does_not_answer_from_the_old_one(redis_url, stubs, changed):
    texts, model = new_texts(), f"org/{next(iter(changed))}"
    with EchoWorker(redis_url, model) as older:
        eventually(lambda: model in served_models(stubs))
        stubs.embed(texts, model=model)
        older.stop()
        with EchoWorker(redis_url, model, **changed) as newer:
            eventually(lambda: stubs.embed(texts, model=model).usage.computed_tokens or num_sequences(newer))
            assert num_sequences(newer) == 3


@pytest.mark.parametrize("scope", ["tenant", "all"])
def test_tenants_are_answered_from_each_others_texts_only_where_told_so(redis_url, embedder, tmp_path, scope):
    texts = new_texts()
    access = tmp_path / "access.toml"
    access.write_text(ACCESS)
    with caching(redis_url, "--access", str(access), "--cache-scope", scope) as (_, stubs):
        embed_as(stubs, "one", texts)
        assert embed_as(stubs, "one", texts).usage.computed_tokens == 0
        other = embed_as(stubs, "other", texts)
        assert other.usage.computed_tokens == (0 if scope == "all" else other.usage.input_tokens)
    assert num_sequences(embedder) == (3 if scope == "all" else 6)


def test_nothing_of_a_text_stands_in_the_log_or_in_what_is_kept(redis_url, served):
    process, stubs = served
    with EchoWorker(redis_url, "org/secret") as worker, connect(redis_url) as client:
        eventually(lambda: "org/secret" in served_models(stubs))
        stubs.embed([MARKER], model="org/secret")
        stubs.embed([MARKER], model="org/secret")
        values, uses, _ = QueueKeys("org/secret@r1").of_cache
        ((digest, value),) = client.hgetall(values).items()
        assert client.zrange(uses, 0, -1) == [digest]
        ((_, job),) = worker.jobs
    assert (len(digest), len(value)) == (32, 8 + 64 * 4)
    assert job.tails[0].tobytes()[:8] not in digest + value
    assert MARKER not in process.log
    assert digest.hex() not in process.log


def test_a_cache_that_cannot_be_read_is_done_without_and_reported_once(redis_url, served, embedder):
    process, stubs = served
    texts = new_texts()
    stubs.embed(texts)
    with connect(redis_url) as client:
        keys = QueueKeys(f"{EMBED}@r1").of_cache
        client.delete(*keys)
        stubs.embed(texts)
        assert stubs.embed(texts).usage.computed_tokens == 0
        client.delete(*keys)
        client.set(keys[1], "not a sorted set")
        for number in range(3, 6):
            stubs.embed(texts)
            assert num_sequences(embedder) == 3 * number
        client.delete(keys[1])
    eventually(lambda: stubs.embed(texts).usage.computed_tokens == 0)
    assert process.log.count("cache cannot be read") == 1
