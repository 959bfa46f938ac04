"""The gateway's settings: flags, variables, and what is refused with its name, value and reason."""

import pytest
from pydantic import ValidationError

from gateway.config import GatewaySettings

URL = "redis://:s3cret@db:6379/0"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in GatewaySettings.model_fields:
        monkeypatch.delenv(f"QWEN3_{name.upper()}", raising=False)


def read(*arguments: str) -> GatewaySettings:
    return GatewaySettings.from_command_line(["--redis", URL, *arguments])


def refusal(capfd, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        GatewaySettings.from_command_line(list(arguments))
    assert exit_.value.code == 2
    return capfd.readouterr().err


def test_only_redis_must_be_given():
    settings = read()
    assert settings.redis == URL
    assert settings.listen == "127.0.0.1:50051"
    assert (settings.max_embed_inputs, settings.max_rerank_documents) == (256, 1000)


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        read().listen = "0.0.0.0:1"


def test_a_flag_wins_over_its_variable_which_wins_over_the_default(monkeypatch):
    monkeypatch.setenv("QWEN3_BULK_SHARE", "0.5")
    assert read().bulk_share == 0.5
    assert read("--bulk-share", "0.25").bulk_share == 0.25


def test_redis_may_come_from_its_variable(monkeypatch):
    monkeypatch.setenv("QWEN3_REDIS", URL)
    assert GatewaySettings.from_command_line([]).redis == URL


def test_pins_are_given_one_by_one_or_together(monkeypatch):
    assert read("--pin", "a@1", "--pin", "b@2").pin == ["a@1", "b@2"]
    assert read("--pin", "a@1,b@2").pin == ["a@1", "b@2"]
    monkeypatch.setenv("QWEN3_PIN", "org/a@1,b@2")
    assert read().pin == ["org/a@1", "b@2"]


def test_a_missing_setting_is_named_as_flag_and_variable(capfd):
    message = refusal(capfd)
    assert "--redis (QWEN3_REDIS)" in message
    assert "required" in message


BAD = [
    ("bulk_share", "x", "valid number"),
    ("bulk_share", "0", "greater than 0"),
    ("bulk_share", "1.5", "less than or equal to 1"),
    ("max_embed_inputs", "-3", "greater than 0"),
    ("max_embed_inputs", "2.5", "valid integer"),
    ("default_timeout_s", "0", "greater than or equal to 0.001"),
    ("max_wait_s", "inf", "finite number"),
    ("trace_share", "nan", "finite number"),
    ("cache_ttl_s", "0.0001", "greater than or equal to 0.001"),
    ("stream_chunk_timeout_s", "1000001", "less than or equal to 1000000"),
    ("max_concurrent_streams", "2147483648", "less than or equal to 2147483647"),
    ("listen", "nowhere", "HOST:PORT"),
    ("listen", ":50051", "HOST:PORT"),
    ("listen", "host:port", "HOST:PORT"),
    ("pin", "no-revision", "is not MODEL@REVISION"),
    ("pin", "a@b@c", "is not MODEL@REVISION"),
    ("pin", "a@1,b@1,a@2", "'a' is pinned more than once"),
    ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
]


@pytest.mark.parametrize(("name", "value", "reason"), BAD)
def test_a_bad_flag_is_refused_with_name_value_and_reason(capfd, name, value, reason):
    flag = f"--{name.replace('_', '-')}"
    message = refusal(capfd, "--redis", URL, flag, value)
    assert f"{flag} (QWEN3_{name.upper()})" in message
    assert value in message
    assert reason in message
    assert "s3cret" not in message


@pytest.mark.parametrize(("name", "value", "reason"), BAD)
def test_a_bad_variable_is_refused_with_name_value_and_reason(capfd, monkeypatch, name, value, reason):
    monkeypatch.setenv("QWEN3_REDIS", URL)
    monkeypatch.setenv(f"QWEN3_{name.upper()}", value)
    message = refusal(capfd)
    assert f"--{name.replace('_', '-')} (QWEN3_{name.upper()})" in message
    assert value in message
    assert reason in message
    assert "s3cret" not in message


def test_all_bad_settings_are_told_at_once(capfd):
    message = refusal(capfd, "--bulk-share", "2", "--max-queue-jobs", "x")
    for flag in ("--redis", "--bulk-share", "--max-queue-jobs"):
        assert flag in message


def test_an_unknown_flag_is_refused_without_telling_secrets(capfd):
    message = refusal(capfd, "--redis", URL, "--bulk-shares", "0.5")
    assert "--bulk-shares" in message
    assert "s3cret" not in message


def test_help_documents_every_flag(capfd):
    with pytest.raises(SystemExit) as exit_:
        GatewaySettings.from_command_line(["--help"])
    assert exit_.value.code in (None, 0)
    text = capfd.readouterr().out
    for name, field in GatewaySettings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description
