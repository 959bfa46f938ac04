"""`qwen3-serve` with real models: one line, one service, nothing left behind."""

import signal
from collections.abc import Iterator

import grpc
import psutil
import pytest

from qwen3.inference.v1 import embedding_pb2
from tests.support.certificates import Authority, TlsFiles, channel_credentials
from tests.support.processes import Process, running
from tests.support.wire import Stubs, unpack

GIVE_UP_S = 60


@pytest.fixture
def serve(embedding_checkpoint, rerank_checkpoint) -> Iterator[Process]:
    models = (f"embedding:{embedding_checkpoint}", str(rerank_checkpoint))
    with running("standalone", *models, "--listen", "127.0.0.1:0") as process:
        yield process
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.log


def descendants(process: Process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def workers_of(process: Process) -> list[psutil.Process]:
    return [child for child in descendants(process) if "worker" in child.cmdline()]


def test_a_killed_worker_is_replaced_and_its_calls_are_answered(serve, embedding_checkpoint):
    stubs = Stubs(serve.ready())
    before = unpack(stubs.embed(["before"]))
    (victim,) = [child for child in workers_of(serve) if any("embedding" in word for word in child.cmdline())]
    calls = [stubs.embedding.Embed.future(_request(number), timeout=GIVE_UP_S) for number in range(20)]
    victim.send_signal(signal.SIGKILL)
    assert all(len(call.result().embeddings) == 4 for call in calls)
    assert abs(float((unpack(stubs.embed(["before"])) @ before.T)[0, 0]) - 1) < 1e-6
    assert len(stubs.scores("still", ["here", "there"])) == 2
    stubs.channel.close()


def _request(number: int) -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(inputs=[f"call {number} " + "long text " * 300] * 4)


def test_sigterm_leaves_no_process_behind(embedding_checkpoint):
    with running("standalone", str(embedding_checkpoint), "--listen", "127.0.0.1:0") as process:
        process.ready()
        children = descendants(process)
        assert len(children) >= 3, "a Redis, a gateway and a worker"
        assert process.stop() == 0
        _, alive = psutil.wait_procs(children, timeout=GIVE_UP_S)
    assert not alive


def test_the_gateways_tls_and_access_control_come_from_the_environment(embedding_checkpoint, tmp_path):
    servers, clients = Authority(), Authority()
    tls = TlsFiles.written(tmp_path, servers.server(), clients.pem)
    variables = {
        "QWEN3_TLS_CERT": str(tls.cert),
        "QWEN3_TLS_KEY": str(tls.key),
        "QWEN3_TLS_CLIENT_CA": str(tls.client_ca),
        "QWEN3_ACCESS_TOML": '[tenants.a]\nmodels = ["*"]\ncertificate_dns_names = ["a.internal"]',
        "QWEN3_OPEN_SERVICES": "",
    }
    with running("standalone", str(embedding_checkpoint), "--listen", "0.0.0.0:0", env=variables) as process:
        address = process.ready().replace("0.0.0.0", "127.0.0.1")
        credentials = channel_credentials(servers.pem, clients.named("a.internal"))
        with grpc.secure_channel(address, credentials) as channel:
            assert len(Stubs(address, channel).embed(["text"]).embeddings) == 1
        assert process.stop() == 0


def test_kill_9_leaves_no_process_behind(embedding_checkpoint):
    with running("standalone", str(embedding_checkpoint), "--listen", "127.0.0.1:0") as process:
        process.ready()
        children = descendants(process)
        process.signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=GIVE_UP_S)
    assert not alive


def test_a_model_that_cannot_be_served_ends_it_with_the_reason(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with running("standalone", str(tmp_path), "--listen", "127.0.0.1:0") as process:
        assert process.wait() == 1
        assert "task" in process.log


def test_a_redis_that_is_not_there_ends_it_with_the_reason(embedding_checkpoint):
    options = ("--listen", "127.0.0.1:0", "--redis", "unix:///nowhere")
    with running("standalone", str(embedding_checkpoint), *options) as process:
        assert process.wait() == 1
        assert "the Redis server that --redis names cannot be used" in process.log


def test_two_folders_of_one_name_are_refused(tmp_path):
    for task in ("embedding", "reranker"):
        (tmp_path / task / "0.6B").mkdir(parents=True)
    with running("standalone", str(tmp_path / "embedding/0.6B"), str(tmp_path / "reranker/0.6B")) as process:
        assert process.wait() == 2
        assert "two models would be served as '0.6B'" in process.log
