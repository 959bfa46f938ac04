"""The programs' own settings: documented, known to one another, and refused in one line by the programs themselves."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from evaluation.cli import app as evaluation
from jobqueue.cli import app as queue
from qwen3_client.cli.app import app as client
from qwen3_client.cli.connection import TOKEN_VARIABLE
from runtime.settings_fields import settings_of, table_name
from runtime.settings_file import TABLES
from runtime.settings_variables import VARIABLES
from standalone.settings_docs import PROGRAMS, settings_page, variables_module

ROOT = Path(__file__).parents[3]


def test_the_page_of_settings_is_current():
    assert (ROOT / "docs/settings.md").read_text() == settings_page(), "run `make docs`"


def test_the_known_variables_are_current():
    assert (ROOT / "runtime/settings_variables.py").read_text() == variables_module(), "run `make docs`"
    assert {"QWEN3_CONFIG", "QWEN3_REDIS", TOKEN_VARIABLE} < VARIABLES


@pytest.mark.parametrize("app", [client, evaluation, queue], ids=["qwen3", "qwen3-eval", "qwen3-queue"])
def test_no_program_warns_of_what_the_command_lines_read(app):
    assert set(variables_of(typer.main.get_command(app))) < VARIABLES


def variables_of(command: click.Command) -> Iterator[str]:
    yield from (parameter.envvar for parameter in command.params if isinstance(parameter.envvar, str))
    for inner in getattr(command, "commands", {}).values():
        yield from variables_of(inner)


def test_every_program_has_its_table():
    assert {table_name(program) for program in PROGRAMS} == set(TABLES)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_is_described(program):
    assert all(setting.description for setting in settings_of(program).values())


@pytest.mark.parametrize("module", ["gateway", "worker", "standalone"])
def test_a_program_ends_with_status_2_and_one_line(module, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("[gateway]\n[sevre]\n")
    command = [sys.executable, "-m", module, "--config", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{file}: [sevre]: no such table; is serve meant?\n"
