"""The command line `qwen3`: from texts and files to vectors and ranks. docs/command-line.md is its manual.

app.py has the commands, and the rest what they share: where rows come from (sources.py), what vectors become
(formats.py), how a file is made that a killed run can go on with (unfinished.py), how a command ends (endings.py).
"""

from qwen3_client.cli.app import app

__all__ = ["app"]
