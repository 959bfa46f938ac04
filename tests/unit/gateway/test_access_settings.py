"""Settings of TLS and access that do not go together, or with the address."""

from pathlib import Path

import pytest

from gateway.config import GatewaySettings
from runtime.settings import is_loopback
from standalone.config import ServeSettings
from standalone.programs import gateway_program


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in GatewaySettings.model_fields:
        monkeypatch.delenv(f"QWEN3_{name.upper()}", raising=False)


@pytest.fixture
def file(tmp_path) -> str:
    found = tmp_path / "file"
    found.touch()
    return str(found)


def read(*arguments: str) -> GatewaySettings:
    return GatewaySettings.from_command_line(["--redis", "redis://db", *arguments])


def refusal(capfd, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        read(*arguments)
    assert exit_.value.code == 2
    return capfd.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1"])
def test_what_only_this_machine_can_reach_needs_no_tls(address):
    assert is_loopback(address)
    assert read("--listen", address).listen == address


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "127.0.0.1.example.org:1"])
def test_what_others_can_reach_needs_tls_or_a_word(capfd, file, address):
    assert not is_loopback(address)
    message = refusal(capfd, "--listen", address)
    assert f"--listen (QWEN3_LISTEN) = '{address}'" in message
    assert "--insecure" in message
    assert read("--listen", address, "--insecure").insecure
    assert read("--listen", address, "--tls-cert", file, "--tls-key", file).listen == address


def test_the_certificate_and_its_key_go_together(capfd, file):
    assert "--tls-key (QWEN3_TLS_KEY)" in refusal(capfd, "--tls-cert", file)
    assert "--tls-cert (QWEN3_TLS_CERT)" in refusal(capfd, "--tls-key", file)
    assert "--tls-client-ca (QWEN3_TLS_CLIENT_CA) needs" in refusal(capfd, "--tls-client-ca", file)


def test_a_file_that_is_not_there_is_refused_by_name(capfd, file):
    for name in ("tls-cert", "tls-key", "tls-client-ca", "access"):
        assert f"--{name} (QWEN3_" in refusal(capfd, f"--{name}", f"{file}.missing")


def test_the_rules_come_from_a_file_or_from_the_environment(capfd, file, monkeypatch):
    assert read("--access", file).access == Path(file)
    monkeypatch.setenv("QWEN3_ACCESS_TOML", "the rules")
    assert "the rules" not in repr(read())
    message = refusal(capfd, "--access", file)
    assert "--access-toml (QWEN3_ACCESS_TOML)" in message
    assert "the rules" not in message


def test_open_services_are_some_all_or_none(capfd):
    assert read().open_services == {"health"}
    assert read("--open-services", "health,reflection").open_services == {"health", "reflection"}
    assert read("--open-services", "").open_services == set()
    assert "--open-services (QWEN3_OPEN_SERVICES)" in refusal(capfd, "--open-services", "admin")


def test_the_service_of_one_machine_passes_the_word_on():
    command = gateway_program(ServeSettings.from_command_line(["a/b", "--listen", "0.0.0.0:1", "--insecure"])).command
    assert "--insecure" in command
    assert "--insecure" not in gateway_program(ServeSettings.from_command_line(["a/b"])).command
