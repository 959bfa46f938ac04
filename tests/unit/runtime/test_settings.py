"""Settings of any process."""

import pytest
from pydantic import Field, model_validator

from runtime.settings import EXIT_USAGE, Settings


class Sample(Settings):
    """A process's settings."""

    secret: str = Field(description="never shown")
    num_threads: int = Field(1, ge=1, description="threads")
    verbose: bool = Field(default=False, description="say more")

    @model_validator(mode="after")
    def _check(self) -> "Sample":
        if self.verbose and self.num_threads > 8:
            raise ValueError("too many threads to listen to")
        return self


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in Sample.model_fields:
        monkeypatch.delenv(f"QWEN3_{name.upper()}", raising=False)


def refusal(capfd, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        Sample.from_command_line(list(arguments))
    assert exit_.value.code == EXIT_USAGE == 2
    return capfd.readouterr().err


def test_a_refusal_has_flag_variable_value_and_reason(capfd):
    message = refusal(capfd, "--secret", "s3cret", "--num-threads", "zero")
    assert message.strip() == (
        "--num-threads (QWEN3_NUM_THREADS) = 'zero': "
        "Input should be a valid integer, unable to parse string as an integer"
    )


def test_a_missing_setting_shows_no_value_of_others(capfd):
    message = refusal(capfd, "--num-threads", "2")
    assert message.strip() == "--secret (QWEN3_SECRET): Field required"


def test_settings_that_do_not_go_together_tell_the_reason_and_no_secret(capfd):
    message = refusal(capfd, "--secret", "s3cret", "--num-threads", "9", "--verbose")
    assert "too many threads to listen to" in message
    assert "s3cret" not in message


def test_a_switch_is_a_flag_alone_and_a_variable(monkeypatch):
    assert Sample.from_command_line(["--secret", "x", "--verbose"]).verbose
    assert not Sample.from_command_line(["--secret", "x", "--no-verbose"]).verbose
    monkeypatch.setenv("QWEN3_VERBOSE", "true")
    assert Sample.from_command_line(["--secret", "x"]).verbose


def test_variables_of_other_processes_are_ignored(monkeypatch):
    monkeypatch.setenv("QWEN3_OF_SOMEONE_ELSE", "1")
    assert Sample.from_command_line(["--secret", "x"]).num_threads == 1
