"""Settings: one frozen object per process, checked at its start.

They come from a TOML file (`--config`), from `QWEN3_...` variables and from flags; later wins. A bad one ends the
process with the setting's name, the value and the reason.
"""

import ipaddress
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime.errors import SettingError
from runtime.settings_fields import ENV_PREFIX, POSITIONAL
from runtime.settings_flags import read_flags
from runtime.settings_sources import Sources, unknown_variables

EXIT_USAGE = 2
MAX_PORT = 65_535

LogLevel = Literal["debug", "info", "warning", "error"]


def _check_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError("HOST:PORT is expected")
    return value


def _check_http_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", value):
        raise ValueError("http://HOST:PORT is expected, or https")
    return value


def _check_port_range(value: str) -> str:
    found = re.fullmatch(r".+:(\d{1,5})(?:-(\d{1,5}))?", value)
    if not found or not int(found[1]) <= int(found[2] or found[1]) <= MAX_PORT:
        raise ValueError("HOST:PORT or HOST:FIRST-LAST is expected")
    return value


def _split(value: Any) -> Any:
    return [item for part in value.split(",") if (item := part.strip())] if isinstance(value, str) else value


ListenAddress = Annotated[str, AfterValidator(_check_address)]
ListenRange = Annotated[str, AfterValidator(_check_port_range)]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]

T = TypeVar("T")
CommaSeparated = Annotated[T, BeforeValidator(_split)]  # of list[...] or frozenset[...]; the file has an array
Positional = Annotated[T, POSITIONAL]  # named by its place on the command line


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach HOST:PORT; no other name than localhost is looked up."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """Base of every process's settings; subclasses only declare fields, and checks between them.

    A check's ValueError is told as it is: it names the settings by their flags, and no secret.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, enable_decoding=False, allow_inf_nan=False
    )

    config: Path | None = Field(None, description="TOML file of settings, with a table for each program")

    @classmethod
    def from_command_line(cls, arguments: list[str] | None = None) -> Self:
        """Read all sources; end the process with EXIT_USAGE where they are wrong, and after --print-config."""
        for warning in unknown_variables(os.environ):
            sys.stderr.write(f"{warning}\n")
        try:
            line = read_flags(cls, sys.argv[1:] if arguments is None else arguments)
            sources = Sources.read(cls, line.values)
        except SettingError as error:
            _refuse(str(error))
        try:
            settings = cls(**sources.values)
        except ValidationError as error:
            _refuse("\n".join(sources.explain(detail) for detail in error.errors()))
        if line.print_config:
            sys.stdout.write(sources.as_toml(settings))
            sys.exit()
        return settings

    @field_validator("*", mode="before")
    @classmethod
    def _unset(cls, value: Any, info: ValidationInfo) -> Any:
        """An optional setting that is given as "" is not set, whatever the earlier sources say."""
        is_optional = cls.model_fields[info.field_name or ""].default is None
        return None if value == "" and is_optional else value


def _refuse(problems: str) -> NoReturn:
    sys.stderr.write(f"{problems}\n")
    sys.exit(EXIT_USAGE)
