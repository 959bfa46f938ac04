"""Every snippet of docs/clients.md runs as it stands, but for the addresses."""

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from gateway.identity.api_keys import ApiKey
from jobqueue.messages import Operation
from tests.support.certificates import Authority, TlsFiles
from tests.support.echo import EchoWorker
from tests.support.processes import gateway

PAGE = Path("docs/clients.md").read_text()
SNIPPETS = {
    section.partition("\n")[0] + f" {number}": snippet
    for section in PAGE.split("\n## ")[1:]
    for number, snippet in enumerate(re.findall(r"```(python|sh)\n(.*?)```", section, re.DOTALL), start=1)
}
KEY = ApiKey.new()
ACCESS = f"""
[tenants.docs]
models = ["*"]
keys.{KEY.id} = {{ sha256 = "{KEY.sha256}" }}
"""


@pytest.fixture(scope="module")
def models(redis_url):
    embedder = EchoWorker(redis_url, "docs-embedding")
    with embedder, EchoWorker(redis_url, "docs-reranker", Operation.RERANK):
        yield [
            "--await-models",
            "docs-embedding,docs-reranker",
            "--default-embedding-model",
            "docs-embedding",
            "--default-rerank-model",
            "docs-reranker",
        ]


@pytest.fixture(scope="module")
def plain(redis_url, models):
    with gateway(redis_url, *models) as (_, address):
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the snippets run, with the files that they read, and those of the server."""
    found = tmp_path_factory.mktemp("docs")
    servers, clients = Authority(), Authority()
    TlsFiles.written(found, servers.server(), clients.pem)
    clients.named("client.example.com").write(found / "client.crt", found / "client.key")
    found.joinpath("ca.crt").write_bytes(servers.pem)
    found.joinpath("access.toml").write_text(ACCESS)
    found.joinpath("token").write_text(f"{KEY.reveal()}\n")
    found.joinpath("texts.txt").write_text("".join(f"text {number}\n" for number in range(700)))
    return found


@pytest.fixture(scope="module")
def secured(redis_url, models, folder):
    """With TLS, and keys to be shown."""
    files = ["--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")]
    with gateway(redis_url, *models, *files, "--access", str(folder / "access.toml")) as (_, address):
        yield address


@pytest.fixture(scope="module")
def mutual(redis_url, models, folder):
    """The same, and clients' certificates are asked for."""
    files = ["--tls-cert", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key")]
    files += ["--tls-client-ca", str(folder / "clients.crt"), "--access", str(folder / "access.toml")]
    with gateway(redis_url, *models, *files) as (_, address):
        yield address


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_runs(name, plain, secured, mutual, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QWEN3_TOKEN", KEY.reveal())
    addresses = {
        "dns:///gateway.example.com:50051": f"dns:///localhost:{secured.rpartition(':')[2]}",
        "gateway.example.com:50051": mutual,
        "127.0.0.1:50051": plain,
    }
    language, code = SNIPPETS[name]
    assert any(address in code for address in addresses)
    for written, real in addresses.items():
        code = code.replace(written, real)
    if language == "sh":
        printed = in_shell(code)
    else:
        exec(compile(code, f"docs/clients.md: {name}", "exec"), {"__name__": "__main__"})
        printed = capsys.readouterr().out
    assert printed.strip()


def in_shell(code: str) -> str:
    """What it prints, with the commands of this environment."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_every_part_of_the_page_has_a_snippet():
    sections = [line.removeprefix("## ") for line in PAGE.splitlines() if line.startswith("## ")]
    assert {name.rpartition(" ")[0] for name in SNIPPETS} == set(sections)
