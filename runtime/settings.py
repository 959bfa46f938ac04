"""Settings: one frozen object per process, from flags and `QWEN3_...` variables, checked at start.

A flag wins over its environment variable, which wins over the default. A bad value ends the process with the
setting's name, the value and the reason.
"""

import sys
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

ENV_PREFIX = "QWEN3_"
EXIT_USAGE = 2
MAX_PORT = 65_535


LogLevel = Literal["debug", "info", "warning", "error"]


def _check_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError("HOST:PORT is expected")
    return value


ListenAddress = Annotated[str, AfterValidator(_check_address)]


class Settings(BaseSettings):
    """Base of every process's settings; subclasses only declare fields."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_enforce_required=False,
    )

    @classmethod
    def from_command_line(cls, arguments: list[str] | None = None) -> Self:
        """Read the command line and the environment; end the process with EXIT_USAGE where they are wrong."""
        try:
            return CliApp.run(cls, cli_args=sys.argv[1:] if arguments is None else arguments)
        except ValidationError as error:
            problems = [_explain(detail) for detail in error.errors()]
        except SettingsError as error:
            problems = [str(error)]
        sys.stderr.write("\n".join(problems) + "\n")
        sys.exit(EXIT_USAGE)


def _explain(detail: ErrorDetails) -> str:
    """`--threads (QWEN3_THREADS) = 'x': Input should be a valid integer`."""
    name = str(detail["loc"][0]) if detail["loc"] else ""
    where = f"--{name.replace('_', '-')} ({ENV_PREFIX}{name.upper()})" if name else "settings"
    # Without a name the input is all settings, secrets among them.
    value = "" if detail["type"] == "missing" or not name else f" = {detail['input']!r}"
    return f"{where}{value}: {detail['msg']}"
