"""The settings file, read and written: TOML, a table for each program."""

import json
import tomllib
from pathlib import Path
from typing import Any

from runtime.errors import SettingError
from runtime.settings_text import suggestion

CONFIG = "config"  # the setting that names the file, which the file cannot set
TABLES = ("gateway", "make-checkpoint", "serve", "worker")


def read_table(file: Path, table: str) -> dict[str, Any]:
    """The keys of one program's table, not checked yet; other programs' are left alone. Raises SettingError."""
    try:
        tables = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise SettingError(f"--config (QWEN3_CONFIG) = {str(file)!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or a number or nesting beyond Python's limits
        raise SettingError(f"--config (QWEN3_CONFIG) = {str(file)!r}: not TOML: {error}") from error
    problems = [problem for name, value in tables.items() if (problem := _problem(name, value))]
    if problems:
        raise SettingError("\n".join(f"{file}: {problem}" for problem in problems))
    keys: dict[str, Any] = tables.get(table, {})
    return keys


def _problem(name: str, value: object) -> str | None:
    if not isinstance(value, dict):
        return f"{name}: not a table, such as [gateway]"
    if name not in TABLES:
        return f"[{name}]: no such table{suggestion(name, TABLES)}"
    return f"[{name}] {CONFIG}: a file cannot name another one" if CONFIG in value else None


def toml(value: Any) -> str:
    """`value` as the file would hold it."""
    if isinstance(value, frozenset):
        value = sorted(value)
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", r"\u007f")
