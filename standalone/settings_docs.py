"""`python -m standalone.settings_docs MARKDOWN VARIABLES`: write docs/settings.md and runtime/settings_variables.py.

Both are made of the programs' settings. It stands here since nothing below may import all programs.
"""

import sys
from pathlib import Path

from pydantic_settings import BaseSettings

from gateway.config import GatewaySettings
from runtime.settings_fields import Setting, program_name, settings_of, table_name
from standalone.config import ServeSettings
from worker.config import WorkerSettings
from worker.make_checkpoint import CheckpointSettings

PROGRAMS: tuple[type[BaseSettings], ...] = (GatewaySettings, WorkerSettings, ServeSettings, CheckpointSettings)
# Of `qwen3` and `qwen3-eval`, read by typer, as qwen3-queue reads QWEN3_REDIS.
_CLIENTS_VARIABLES = frozenset(
    {
        "QWEN3_CA_FILE",
        "QWEN3_CERT_FILE",
        "QWEN3_EVAL_DTYPE",
        "QWEN3_EVAL_ENGINE",
        "QWEN3_KEY_FILE",
        "QWEN3_SERVER_NAME",
        "QWEN3_TARGET",
        "QWEN3_TIMEOUT",
        "QWEN3_TLS",
        "QWEN3_TOKEN",
        "QWEN3_TOKEN_FILE",
    }
)

_INTRODUCTION = """\
# Settings

Made by `make docs` from the settings' definitions.

`qwen3-gateway`, `qwen3-worker`, `qwen3-serve` and `qwen3-make-checkpoint` take each of their settings from four places.
The later one wins:

1. the default;
2. the settings file, TOML, which `--config FILE` or `QWEN3_CONFIG` names. One file serves all programs: each reads its
   own table and leaves the others' alone;
3. the environment, where a setting's name is in capitals, behind `QWEN3_`;
4. the command line.

```toml
[gateway]
listen = "0.0.0.0:50051"
tls_cert = "/etc/qwen3/tls.crt"
tls_key = "/etc/qwen3/tls.key"
pin = ["Qwen/Qwen3-Embedding-0.6B@c54f2e6e80b2"]

[worker]
redis = "redis://redis.internal:6379"
max_batch_tokens = 16384
```

- Switches are `--admin` and `--no-admin` as flags, and `true` and `false` elsewhere.
- Lists are arrays in the file, and separated by commas elsewhere; a flag may also be given several times.
- An optional setting that is given as `""` is not set: that undoes what an earlier place says.
- Units are in the names: `_s` seconds, `_mib` MiB, `_bytes`, `_tokens`.

**Mistakes** end a program with exit status 2 and a line for each on stderr: the setting, its value, and what is wrong
with it. An unknown flag, table or key is a mistake, too; another program's table is not looked into. A variable that
starts with `QWEN3_` and is no setting of any program is named in a warning and ignored: environments are shared.

**`--print-config`** checks all settings, prints those in use as a settings file that tells where each is from, and
exits. Secrets (URLs with a password, `access_toml`) are masked and commented out, and have to be given again where the
printed file is used.

**`qwen3-serve`** hands the settings file and the environment to the processes that it starts. What it sets for them
itself wins over both: their Redis server, and what is a setting of its own, such as `listen`, `device` and `log_level`.
`model`, `name`, `revision` and `task` of `[worker]` are not used there: they would be the same for all models.
"""

_VARIABLES_MODULE = '''\
"""The variables of all programs, made by `make docs`."""

VARIABLES = frozenset(
    {{
{lines}    }}
)
'''


def main() -> None:
    markdown, variables = sys.argv[1:]
    Path(markdown).write_text(settings_page(), encoding="utf-8")
    Path(variables).write_text(variables_module(), encoding="utf-8")


def settings_page() -> str:
    return "\n".join([_INTRODUCTION, *(_section(program) for program in PROGRAMS)])


def variables_module() -> str:
    of_programs = {setting.variable for program in PROGRAMS for setting in settings_of(program).values()}
    lines = "".join(f'        "{name}",\n' for name in sorted(of_programs | _CLIENTS_VARIABLES))
    return _VARIABLES_MODULE.format(lines=lines)


def _section(program: type[BaseSettings]) -> str:
    rows = "".join(_row(setting) for setting in settings_of(program).values())
    head = "| flag | variable | key | value | default | |\n|---|---|---|---|---|---|\n"
    return f"## {program_name(program)}: [{table_name(program)}]\n\n{head}{rows}"


def _row(setting: Setting) -> str:
    key = "" if setting.name == "config" else f"`{setting.name}`"
    value = f"`{setting.kind}`" + (f" {setting.bounds}" if setting.bounds else "")
    default = "required" if setting.is_required else f"`{setting.default}`" if setting.default else "not set"
    cells = (f"`{setting.flag}`", f"`{setting.variable}`", key, value, default, setting.description)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    main()
