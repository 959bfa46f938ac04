"""The command line: a flag for every setting, and --print-config."""

import inspect
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic_settings import BaseSettings

from runtime.errors import SettingError
from runtime.settings_fields import Setting, program_name, settings_of, table_name
from runtime.settings_text import hide_passwords, suggestion

_PRINT_CONFIG = "--print-config"
_EPILOG = """\
Each setting is also a variable (--log-level is QWEN3_LOG_LEVEL) and a key of the table [{table}] of the file that
--config names (log_level). Flags win over variables, and variables over the file. Lists are separated by commas, and
are arrays in the file. "" is: not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """`values` are the flags that were given, by setting and as they were written."""

    values: dict[str, Any]
    print_config: bool


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A reason among the others, where argparse would write the usage and exit."""
        raise SettingError(hide_passwords(message))


def read_flags(program: type[BaseSettings], arguments: Sequence[str]) -> CommandLine:
    """Raises SettingError; ends the process after --help."""
    settings = settings_of(program)
    parser = _parser(program, settings.values())
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise SettingError(_unknown(unknown, [_PRINT_CONFIG, *(setting.flag for setting in settings.values())]))
    values = vars(namespace)
    print_config = values.pop("print_config")
    lists = {name: ",".join(value) for name, value in values.items() if settings[name].is_list}
    return CommandLine(values=values | lists, print_config=print_config)


def _parser(program: type[BaseSettings], settings: Iterable[Setting]) -> ArgumentParser:
    positional = "".join(f" {setting.flag}" for setting in settings if setting.is_positional)
    parser = _Parser(
        prog=program_name(program),
        usage=f"%(prog)s [FLAGS]{positional}",
        description=inspect.getdoc(program),
        epilog=_EPILOG.format(table=table_name(program)),
        formatter_class=RawDescriptionHelpFormatter,
        argument_default=SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        _PRINT_CONFIG,
        action="store_true",
        default=False,
        help="print the settings in use as a file for --config, without secrets, and exit",
    )
    for setting in settings:
        _add(parser, setting)
    return parser


def _add(parser: ArgumentParser, setting: Setting) -> None:
    help_ = f"{setting.description} ({_default(setting)})".replace("%", "%%")
    if setting.is_positional:
        # Not required of argparse: it may come from a variable or the file.
        nargs = "*" if setting.is_list else "?"
        parser.add_argument(setting.name, metavar=setting.flag, nargs=nargs, help=help_)
    elif setting.is_switch:
        parser.add_argument(setting.flag, dest=setting.name, action=BooleanOptionalAction, help=help_)
    else:
        action = "append" if setting.is_list else "store"
        parser.add_argument(setting.flag, dest=setting.name, action=action, metavar=setting.kind, help=help_)


def _default(setting: Setting) -> str:
    if setting.is_required:
        return "required"
    return f"default: {setting.default}" if setting.default else "not set by default"


def _unknown(arguments: Sequence[str], flags: Sequence[str]) -> str:
    """Names the flags alone, since the value of a mistyped one may be a secret."""
    names = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    if not names:
        return f"no such argument: {hide_passwords(' '.join(arguments))}"
    return "\n".join(f"{name}: no such flag{suggestion(name, flags)}" for name in names)
