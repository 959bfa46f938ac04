"""The command line as a process of its own, through real gateways: killed, interrupted, left, and kept small.

Its input is a pipe that the test holds, so that a run is in the middle for as long as it must be.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.identity.api_keys import ApiKey
from qwen3_client import Client
from qwen3_client.batches import MAX_CHUNK_TEXTS
from qwen3_client.bulk import MAX_CHUNKS
from qwen3_client.cli import app
from tests.support.certificates import Authority, TlsFiles
from tests.support.echo import eventually
from tests.support.processes import Process, gateway
from tests.support.redis_servers import free_ports

NUM_TEXTS = 3000
TEXTS = [f"text number {number}" for number in range(NUM_TEXTS)]
MAX_UNDER_WAY = (MAX_CHUNKS + 1) * MAX_CHUNK_TEXTS
KEY = ApiKey.new()


@pytest.fixture(scope="module")
def address(redis_url, shared_worker):
    with gateway(redis_url, "--await-models", "emb") as (_, address):
        yield address


@pytest.fixture(scope="module")
def vectors(address):
    with Client(address) as client:
        return client.embed(TEXTS).vectors


@pytest.fixture
def output(tmp_path):
    return tmp_path / "v.npy"


class Run:
    """A context manager: `qwen3` with these arguments, which reads what it is fed."""

    def __init__(self, address: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", "qwen3_client", "--target", address, "--timeout", "120", *arguments]

    def __enter__(self):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe, env=dict(os.environ))
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()

    def feed(self, texts: list[str]) -> None:
        self.process.stdin.write("".join(f"{text}\n" for text in texts).encode())
        self.process.stdin.flush()

    def ended(self) -> tuple[int, str]:
        """The exit code, and what it said on stderr, once nothing more is fed."""
        _, stderr = self.process.communicate(timeout=120)
        return self.process.returncode, stderr.decode()


def num_done(output: Path) -> int:
    state = output.with_name(f"{output.name}.state")
    return json.loads(state.read_text())["num_rows"] if state.exists() else 0


def num_computed(worker) -> int:
    return sum(len(job.tails) for _, job in worker.jobs)


def await_rows(output: Path, at_least: int) -> None:
    eventually(lambda: num_done(output) >= at_least)


def test_a_killed_run_is_gone_on_with_and_nothing_is_twice(address, vectors, worker, output):
    arguments = ("embed", "--output", str(output))
    with Run(address, *arguments) as run:
        run.feed(TEXTS[:2000])
        await_rows(output, 800)
        run.process.kill()
        run.process.wait()
    assert not output.exists()
    eventually(lambda: worker.num_queued() == 0)
    with Run(address, *arguments) as run:
        run.feed(TEXTS)
        assert run.ended() == (0, "")
    assert np.array_equal(np.load(output), vectors)
    assert [file.name for file in output.parent.iterdir()] == [output.name]
    assert num_computed(worker) <= NUM_TEXTS + MAX_UNDER_WAY


def test_a_gateway_that_is_killed_and_started_again_is_not_noticed(redis_url, vectors, worker, output):
    [port] = free_ports(1)
    command = ["gateway", "--redis", redis_url, "--listen", f"127.0.0.1:{port}", "--await-models", "emb"]
    first, second = Process(*command), None
    try:
        first.ready()
        with Run(f"127.0.0.1:{port}", "embed", "--output", str(output)) as run:
            run.feed(TEXTS[:2000])
            await_rows(output, 800)
            worker.hold()
            run.feed(TEXTS[2000:])
            eventually(worker.num_queued)
            first.kill()
            worker.release()
            second = Process(*command)
            second.ready()
            assert run.ended() == (0, "")
    finally:
        first.kill()
        if second is not None:
            second.kill()
    assert np.array_equal(np.load(output), vectors)
    assert num_computed(worker) <= NUM_TEXTS + MAX_UNDER_WAY


def test_a_run_that_is_interrupted_says_so_and_leaves_no_work(address, vectors, worker, output):
    arguments = ("embed", "--output", str(output))
    with Run(address, *arguments) as run:
        run.feed(TEXTS[:2000])
        await_rows(output, 800)
        worker.hold()
        run.feed(TEXTS[2000:])
        eventually(worker.num_queued)
        run.process.send_signal(signal.SIGINT)
        code, stderr = run.ended()
    assert code == 130
    done = num_done(output)
    assert stderr == f"qwen3: {done} rows are done: run it again, and it goes on there\nqwen3: interrupted\n"
    worker.release()
    eventually(lambda: worker.num_queued() == 0)


def test_a_reader_that_leaves_ends_the_run_quietly(address, worker):
    with Run(address, "embed") as run:
        run.feed(TEXTS[:2000])
        assert json.loads(run.process.stdout.readline())["index"] == 0
        run.process.stdout.close()
        assert (run.process.stderr.read(), run.process.wait(120)) == (b"", 141)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("tls")
    servers, clients = Authority(), Authority()
    TlsFiles.written(found, servers.named("gateway.internal"), clients.pem)
    clients.named("client.internal").write(found / "client.crt", found / "client.key")
    (found / "ca.crt").write_bytes(servers.pem)
    (found / "token").write_text(f"{KEY.reveal()}\n")
    (found / "access.toml").write_text(
        f'[tenants.t]\nmodels = ["emb"]\nkeys.{KEY.id} = {{ sha256 = "{KEY.sha256}" }}\n'
    )
    return found


@pytest.fixture(scope="module")
def secured(redis_url, shared_worker, folder):
    """Wants a client's certificate and a key."""
    files = TlsFiles(cert=folder / "tls.crt", key=folder / "tls.key", client_ca=folder / "clients.crt")
    access = ["--access", str(folder / "access.toml")]
    with gateway(redis_url, "--await-models", "emb", *files.options, *access) as (_, address):
        yield address


FLAGS = ("--ca-file", "ca.crt", "--cert-file", "client.crt", "--key-file", "client.key")
VARIABLES = {"QWEN3_CA_FILE": "ca.crt", "QWEN3_CERT_FILE": "client.crt", "QWEN3_KEY_FILE": "client.key"}
NAME = ("--server-name", "gateway.internal")


@pytest.mark.parametrize(
    ("options", "variables", "code"),
    [
        ((*FLAGS, *NAME, "--token-file", "token"), {}, ""),
        ((), VARIABLES | {"QWEN3_SERVER_NAME": "gateway.internal", "QWEN3_TOKEN": KEY.reveal()}, ""),
        ((*FLAGS, *NAME), {}, "UNAUTHENTICATED"),
        ((*FLAGS, *NAME), {"QWEN3_TOKEN": "q3_wrong_key"}, "UNAUTHENTICATED"),
        ((*FLAGS, "--token-file", "token"), {}, "UNAVAILABLE"),
        (("--ca-file", "ca.crt", *NAME, "--token-file", "token"), {}, "UNAVAILABLE"),
        (("--tls", "--token-file", "token"), {}, "UNAVAILABLE"),
        (("--token-file", "token"), {}, "UNAVAILABLE"),
    ],
    ids=["flags", "variables", "no key", "wrong key", "other name", "no certificate", "not trusted", "no TLS"],
)
def test_certificates_and_a_key_are_shown(secured, folder, monkeypatch, options, variables, code):
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ("--target", secured, *options, "count-tokens", "a text"), env=variables)
    assert (result.exit_code, code in result.stderr) == (1 if code else 0, True)
    assert KEY.reveal() not in result.output
