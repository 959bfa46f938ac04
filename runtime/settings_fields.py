"""What is known of each setting: its names, what a value looks like, its default. Flags, messages and docs use it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

ENV_PREFIX = "QWEN3_"
POSITIONAL = object()  # in a field's annotation: it is named by its place on the command line

_KINDS = {"boolean": "BOOLEAN", "integer": "INTEGER", "number": "NUMBER", "string": "TEXT"}
_BOUNDS = {
    "exclusiveMinimum": ">",
    "minimum": ">=",
    "exclusiveMaximum": "<",
    "maximum": "<=",
    "multipleOf": "multiple of",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. `kind` says what a value looks like: TEXT, {a,b}, INTEGER,...; `bounds` says `> 0, <= 1`."""

    name: str
    kind: str
    bounds: str
    default: str
    description: str
    is_positional: bool
    is_required: bool
    is_list: bool
    is_switch: bool
    is_secret: bool

    @property
    def flag(self) -> str:
        return self.name.upper() if self.is_positional else "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def names(self) -> str:
        return f"{self.flag} ({self.variable})"


def program_name(program: type[BaseSettings]) -> str:
    return program.model_config.get("cli_prog_name") or program.__name__


def table_name(program: type[BaseSettings]) -> str:
    """The program's table in the settings file: `gateway` for qwen3-gateway."""
    return program_name(program).removeprefix("qwen3-")


def settings_of(program: type[BaseSettings]) -> dict[str, Setting]:
    """The program's settings by their names, as they were declared."""
    schemas = program.model_json_schema()["properties"]
    return {name: _setting(name, field, schemas[name]) for name, field in program.model_fields.items()}


def _setting(name: str, field: FieldInfo, schema: Mapping[str, Any]) -> Setting:
    schema = schema.get("anyOf", [schema])[0]  # of an optional one, what it is when it is set
    return Setting(
        name=name,
        kind=_kind(schema),
        bounds=", ".join(f"{sign} {schema[word]}" for word, sign in _BOUNDS.items() if word in schema),
        default="" if field.is_required() else _as_flag(field.default),
        description=field.description or "",
        is_positional=POSITIONAL in field.metadata,
        is_required=field.is_required(),
        is_list=schema["type"] == "array",
        is_switch=schema["type"] == "boolean",
        is_secret=schema.get("format") == "password",
    )


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "{" + ",".join(schema["enum"]) + "}"
    if schema["type"] == "array":
        return f"{_kind(schema['items'])},..."
    return "PATH" if "path" in schema.get("format", "") else _KINDS[schema["type"]]


def _as_flag(value: Any) -> str:
    """`value` as it would be written behind its flag; "" for what is not set."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case list() | frozenset():
            return ",".join(sorted(value))
    return str(value)
