"""The one line a process prints on stdout: it is ready, and where or what for. Logs go to stderr."""

import sys


def say_ready(what: str) -> None:
    """Tell whoever started this process that it serves."""
    sys.stdout.write(f"ready {what}\n")
    sys.stdout.flush()
