"""Where settings come from: the file, the environment, the command line; later wins. Messages say where.

pydantic-settings reads the environment only. Its other sources take a missing file for an empty one, repeat a mistyped
flag with its value, which may be a secret, and do not tell which of them a value is from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource

from runtime.settings_fields import ENV_PREFIX, Setting, settings_of, table_name
from runtime.settings_file import CONFIG, read_table, toml
from runtime.settings_text import hide_passwords, suggestion
from runtime.settings_variables import VARIABLES

_KUBERNETES = "SERVICE_HOST"  # the end of one of the variables that it makes for each Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What each source says, by setting and as it was written."""

    settings: Mapping[str, Setting]
    table: str
    file: Path | None
    keys: Mapping[str, Any]
    variables: Mapping[str, Any]
    flags: Mapping[str, Any]

    @classmethod
    def read(cls, program: type[BaseSettings], flags: Mapping[str, Any]) -> Self:
        """Raises SettingError."""
        variables = EnvSettingsSource(program)()
        name = {**variables, **flags}.get(CONFIG)
        file, table = Path(name) if name else None, table_name(program)
        keys = read_table(file, table) if file else {}
        return cls(settings=settings_of(program), table=table, file=file, keys=keys, variables=variables, flags=flags)

    @property
    def values(self) -> dict[str, Any]:
        return {**self.keys, **self.variables, **self.flags}

    def explain(self, detail: ErrorDetails) -> str:
        """`--threads (QWEN3_THREADS) = 'x': Input should be a valid integer`; without the value of a secret."""
        reason: str = hide_passwords(detail["msg"].removeprefix("Value error, "))
        if not detail["loc"]:
            return reason
        name = str(detail["loc"][0])
        if detail["type"] == "extra_forbidden":
            return f"{self.file}: [{self.table}] {name}: no such setting{suggestion(name, self.settings)}"
        if detail["type"] == "missing" or self.settings[name].is_secret:
            return f"{self._place(name)}: {reason}"
        return f"{self._place(name)} = {hide_passwords(detail['input'])!r}: {reason}"

    def as_toml(self, settings: BaseSettings) -> str:
        """The program's table with `settings`, which were made of these sources."""
        lines = [self._line(name, value) for name, value in settings if name != CONFIG]
        return "\n".join([f"[{self.table}]", *lines, ""])

    def _line(self, name: str, value: Any) -> str:
        if value is None:
            return f"# {name} is not set  # {self._origin(name)}"
        shown = hide_passwords(value)
        if self.settings[name].is_secret or shown != value:
            return f"# {name} = {toml(shown)}  # {self._origin(name)}, less what is secret"
        return f"{name} = {toml(value)}  # {self._origin(name)}"

    def _place(self, name: str) -> str:
        is_in_file = name in self.keys and not (name in self.variables or name in self.flags)
        return f"{self.file}: [{self.table}] {name}" if is_in_file else self.settings[name].names

    def _origin(self, name: str) -> str:
        if name in self.flags:
            return self.settings[name].flag
        if name in self.variables:
            return self.settings[name].variable
        return repr(str(self.file)) if name in self.keys else "default"


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """A line for each variable that looks like a setting and is none of any program."""
    names = [name for name in environment if name.upper().startswith(ENV_PREFIX)]
    # A Service named qwen3-gateway makes QWEN3_GATEWAY_SERVICE_HOST, QWEN3_GATEWAY_PORT, ... in every container.
    services = tuple(name.removesuffix(_KUBERNETES) for name in names if name.endswith(f"_{_KUBERNETES}"))
    return [
        f"{name} is ignored: no such setting{suggestion(name.upper(), VARIABLES)}"
        for name in sorted(names)
        if name.upper() not in VARIABLES and not name.startswith(services)
    ]
