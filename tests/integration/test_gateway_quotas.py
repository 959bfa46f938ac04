"""Quotas through real gateways: what callers are told, what gateways share, and what ends with a call."""

import contextlib
import json
import uuid
from pathlib import Path

import grpc
import pytest
import redis
from google.rpc import error_details_pb2, status_pb2

from gateway.identity.api_keys import ApiKey
from jobqueue.keys import quota_keys
from jobqueue.messages import Failure, FailureReason, Operation
from qwen3.inference.v1 import common_pb2, embedding_pb2, rerank_pb2, tokenizer_pb2
from tests.support.echo import EchoWorker, eventually
from tests.support.processes import gateway
from tests.support.wire import TIMEOUT_S, Stubs, refusal

SLOW = "0.001"  # per second: one call, and no other while a test runs
QUOTAS = {
    "requests": f"requests_per_s = {SLOW}",
    "counting": f"requests_per_s = {SLOW}",
    "indebted": f"tokens_per_s = {SLOW}",
    "tokens": f"tokens_per_s = {SLOW}",
    "flying": "max_in_flight = 2",
    "crowded": "max_in_flight = 50",
    "streaming": "requests_per_s = 20, max_in_flight = 2",
    "unlimited": "",
}
MAX_REQUEST_TOKENS = 100
MAX_INPUT_TOKENS = 64


class Tenants:
    """The access file, the same tenants under names of their own for each kind of server, and their keys."""

    def __init__(self, folder: Path) -> None:
        run = uuid.uuid4().hex[:8]
        self.names = {name: f"{name}-{run}" for name in QUOTAS}
        self._keys = {name: ApiKey.new() for name in QUOTAS}
        self.file = folder / "access.toml"
        self.file.write_text("\n".join(self._section(name) for name in QUOTAS))

    def metadata(self, name: str) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self._keys[name].reveal()}")]

    def _section(self, name: str) -> str:
        key = self._keys[name]
        return f"""
[tenants.{self.names[name]}]
models = ["*"]
quota = {{ {QUOTAS[name]} }}
keys.{key.id} = {{ sha256 = "{key.sha256}" }}
"""


@pytest.fixture(scope="module")
def tenants(any_redis_url, tmp_path_factory) -> Tenants:
    return Tenants(tmp_path_factory.mktemp("access"))


@pytest.fixture(scope="module")
def shared_worker(any_redis_url):
    with EchoWorker(any_redis_url, "quota-emb", max_input_tokens=MAX_INPUT_TOKENS) as worker:
        yield worker


@pytest.fixture
def worker(shared_worker):
    yield shared_worker
    shared_worker.answer = None
    shared_worker.release()
    eventually(lambda: shared_worker.num_queued() == 0)


@contextlib.contextmanager
def serving(redis_url: str, tenants: Tenants):
    """A gateway: its process and its stubs."""
    options = ["--access", str(tenants.file), "--max-request-tokens", str(MAX_REQUEST_TOKENS)]
    with gateway(redis_url, *options, "--default-embedding-model", "quota-emb") as (process, address):
        stubs = Stubs(address)
        yield process, stubs
        stubs.channel.close()


@pytest.fixture(scope="module")
def processes(any_redis_url, tenants, shared_worker):
    """Two gateways: process and stubs of each."""
    with serving(any_redis_url, tenants) as first, serving(any_redis_url, tenants) as second:
        yield first, second


@pytest.fixture(scope="module")
def gateways(processes):
    """The stubs of both."""
    return [stubs for _, stubs in processes]


@pytest.fixture
def num_in_flight(any_redis_url, tenants):
    with redis.Redis.from_url(any_redis_url) as client:
        yield lambda name: client.zcard(quota_keys(tenants.names[name])[1])


@pytest.fixture
def embed(tenants):
    def call(stubs: Stubs, tenant: str, *texts: str, timeout_s: float = TIMEOUT_S, **config) -> grpc.Future:
        request = embedding_pb2.EmbedRequest(config=embedding_pb2.EmbedConfig(**config), inputs=texts or ["text"])
        return stubs.embedding.Embed.future(request, timeout=timeout_s, metadata=tenants.metadata(tenant))

    return call


def refused(call: grpc.Future):
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    return refusal(caught.value)


def quota_failure(found) -> error_details_pb2.QuotaFailure:
    status = status_pb2.Status.FromString(found.trailers["grpc-status-details-bin"])
    failure = error_details_pb2.QuotaFailure()
    assert [detail.Unpack(failure) for detail in status.details].count(True) == 1
    return failure


def test_gateways_share_a_quota_and_say_who_is_over_it_and_when_to_come_back(gateways, embed, tenants):
    first, second = gateways
    assert embed(first, "requests").result().embeddings
    for stubs in (second, second, first):  # told by Redis, known already, told by Redis
        found = refused(embed(stubs, "requests"))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_REQUESTS")
        assert found.message == "the quota of 0.001 requests per second is used up"
        assert 0 < found.retry_s <= 1000
        assert found.trailers["grpc-retry-pushback-ms"] == str(round(found.retry_s * 1000))
        [violation] = quota_failure(found).violations
        assert (violation.subject, violation.description) == (tenants.names["requests"], found.message)
    assert embed(first, "unlimited").result().embeddings
    assert embed(second, "unlimited").result().embeddings


def test_tokens_are_what_is_left_after_truncation_and_a_large_call_leaves_a_debt(gateways, embed):
    first, second = gateways
    cut = common_pb2.TRUNCATION_POLICY_END
    answer = embed(first, "tokens", " word" * 500, truncation_policy=cut).result()
    assert answer.usage.input_tokens == MAX_INPUT_TOKENS
    found = refused(embed(second, "tokens"))
    assert (found.reason, found.message) == ("QUOTA_TOKENS", "the quota of 0.001 tokens per second is used up")
    assert (MAX_INPUT_TOKENS - 2) * 1000 < found.retry_s <= MAX_INPUT_TOKENS * 1000


def test_who_counts_tokens_uses_a_request_and_no_tokens(gateways, tenants, embed):
    first, second = gateways
    metadata = tenants.metadata("counting")
    count = tokenizer_pb2.CountTokensRequest(inputs=["text"])
    tokenize = tokenizer_pb2.TokenizeRequest(inputs=["text"])
    assert first.tokenizer.CountTokens(count, timeout=TIMEOUT_S, metadata=metadata).total_tokens == 2
    found = refused(second.tokenizer.Tokenize.future(tokenize, timeout=TIMEOUT_S, metadata=metadata))
    assert found.reason == "QUOTA_REQUESTS"
    assert embed(first, "indebted").result().embeddings
    assert refused(embed(first, "indebted")).reason == "QUOTA_TOKENS"
    metadata = tenants.metadata("indebted")
    assert first.tokenizer.CountTokens(count, timeout=TIMEOUT_S, metadata=metadata).total_tokens == 2
    assert first.tokenizer.Tokenize(tokenize, timeout=TIMEOUT_S, metadata=metadata).sequences


def test_calls_in_flight_count_at_all_gateways_until_they_end(gateways, embed, worker, num_in_flight):
    first, second = gateways
    worker.hold()
    held = [embed(first, "flying"), embed(second, "flying")]
    eventually(lambda: num_in_flight("flying") == 2)
    for stubs in gateways:
        found = refused(embed(stubs, "flying"))
        assert (found.reason, found.message) == ("QUOTA_IN_FLIGHT", "the quota of 2 calls in flight is used up")
        assert 0 < found.retry_s < TIMEOUT_S
    worker.release()
    assert all(call.result().embeddings for call in held)
    eventually(lambda: num_in_flight("flying") == 0)
    assert embed(first, "flying").result().embeddings


def test_a_call_that_fails_or_is_cancelled_gives_its_slot_back(gateways, embed, worker, num_in_flight):
    worker.answer = Failure(reason=FailureReason.POISON_INPUT, message="why", sequence=-1)
    assert refused(embed(gateways[0], "flying")).reason == "POISON_INPUT"
    eventually(lambda: num_in_flight("flying") == 0)
    worker.answer = None
    worker.hold()
    call = embed(gateways[0], "flying")
    eventually(lambda: num_in_flight("flying") == 1)
    call.cancel()
    eventually(lambda: num_in_flight("flying") == 0)
    late = embed(gateways[0], "flying", timeout_s=1)
    assert refused_at_deadline(late)
    eventually(lambda: num_in_flight("flying") == 0)


def refused_at_deadline(call: grpc.Future) -> bool:
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    return caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_what_a_killed_gateway_held_is_free_at_the_deadlines(any_redis_url, tenants, gateways, embed, worker):
    worker.hold()
    with serving(any_redis_url, tenants) as (process, stubs):
        held = [embed(stubs, "flying", timeout_s=TIMEOUT_S) for _ in range(2)]
        eventually(lambda: worker.num_queued() == 2)
        process.kill()
        assert all(call.exception() for call in held)
    worker.release()
    assert refused(embed(gateways[0], "flying")).reason == "QUOTA_IN_FLIGHT"
    with redis.Redis.from_url(any_redis_url) as client:
        _, in_flight = quota_keys(tenants.names["flying"])
        deadlines_ms = dict(client.zrange(in_flight, 0, -1, withscores=True))
        now_s, _ = client.time()
        assert all(now_s < deadline_ms / 1000 <= now_s + TIMEOUT_S + 1 for deadline_ms in deadlines_ms.values())
        client.zadd(in_flight, dict.fromkeys(deadlines_ms, now_s * 1000))  # instead of waiting for them
    assert embed(gateways[0], "flying").result().embeddings


def test_a_gateway_that_stops_gives_all_slots_back(any_redis_url, tenants, embed, worker, num_in_flight):
    with serving(any_redis_url, tenants) as (process, stubs):
        worker.hold()
        held = [embed(stubs, "flying") for _ in range(2)]
        eventually(lambda: num_in_flight("flying") == 2)
        worker.release()
        assert process.stop() == 0
        assert all(call.result().embeddings for call in held)
        assert num_in_flight("flying") == 0


def test_of_many_at_once_exactly_so_many_are_let_in(gateways, embed, worker, num_in_flight):
    worker.hold()
    calls = [embed(gateways[number % 2], "crowded") for number in range(200)]
    eventually(lambda: sum(call.done() for call in calls) == 150)
    assert num_in_flight("crowded") == 50
    assert {refused(call).reason for call in calls if call.done()} == {"QUOTA_IN_FLIGHT"}
    worker.release()
    assert sum(call.exception() is None for call in calls) == 50
    eventually(lambda: num_in_flight("crowded") == 0)


def test_chunks_of_a_stream_wait_for_their_turn(gateways, tenants, shared_worker):
    num_chunks = 60  # three seconds' worth
    messages = [embedding_pb2.EmbedStreamRequest(config=embedding_pb2.EmbedConfig())]
    messages += [
        embedding_pb2.EmbedStreamRequest(chunk=embedding_pb2.EmbedChunk(chunk_id=number, inputs=["text"]))
        for number in range(num_chunks)
    ]
    metadata = tenants.metadata("streaming")
    answers = list(gateways[0].embedding.EmbedStream(iter(messages), timeout=TIMEOUT_S, metadata=metadata))
    assert sorted(answer.chunk_id for answer in answers) == list(range(num_chunks))
    assert all(answer.WhichOneof("outcome") == "result" for answer in answers)


@pytest.mark.parametrize("tenant", ["unlimited", "flying"])
def test_a_call_of_too_many_tokens_is_the_callers_mistake(gateways, embed, tenant, shared_worker):
    text = " word" * (MAX_REQUEST_TOKENS // 2)
    found = refused(embed(gateways[0], tenant, text, text))
    assert (found.code, found.field) == (grpc.StatusCode.INVALID_ARGUMENT, "inputs")
    assert found.message == "inputs: more than 100 tokens, which is the most of one call; split the call"
    assert len(embed(gateways[0], tenant, text).result().embeddings) == 1


def test_a_rerank_of_too_many_tokens_names_the_documents(any_redis_url, gateways, tenants):
    metadata = tenants.metadata("unlimited")
    with EchoWorker(any_redis_url, "quota-rer", Operation.RERANK):
        request = rerank_pb2.RerankRequest(model="quota-rer", query="q", documents=["word"] * 50)

        def found():
            return refused(gateways[0].rerank.Rerank.future(request, timeout=TIMEOUT_S, metadata=metadata))

        eventually(lambda: found().reason != "MODEL_NOT_FOUND")
        assert (found().field, found().reason) == ("documents", "INVALID_FIELD")
        assert "more than 100 tokens" in found().message


def test_refusals_are_logged_with_their_tenant_and_reason(processes, tenants, embed):
    process, stubs = processes[0]
    outcomes = [embed(stubs, "requests").exception() for _ in range(2)]
    assert outcomes[-1] is not None
    eventually(lambda: "QUOTA_REQUESTS" in process.log)
    lines = [json.loads(line) for line in process.log.splitlines()]
    refusals = [line for line in lines if line["event"] == "call" and line["reason"] == "QUOTA_REQUESTS"]
    assert refusals[0]["tenant"] == tenants.names["requests"]
    assert refusals[0]["code"] == "RESOURCE_EXHAUSTED"
