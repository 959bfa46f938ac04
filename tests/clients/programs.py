"""Builds an example in a copy under build/clients, and runs it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from google.rpc import error_details_pb2

from tests.clients.languages import Language

EXAMPLES = Path("examples/clients")
BUILD = Path("build/clients").resolve()  # as deep as examples/clients: ../../../protos is the contract from both
GOOGLEAPIS = BUILD / "googleapis"
BUILD_LIMIT_S = 600.0
RUN_LIMIT_S = 120.0


class ProgramError(Exception):
    """A line of bash failed, or took too long; the message has the end of what it printed."""


def build(language: Language) -> None:
    """Build it from the sources as they are now; downloads are kept from run to run."""
    folder = BUILD / language.name
    shutil.copytree(
        EXAMPLES / language.name,
        folder,
        ignore=shutil.ignore_patterns("build", "gen", "node_modules"),
        dirs_exist_ok=True,
    )
    _copy_googleapis()
    for line in language.build:
        _run(line, folder, BUILD_LIMIT_S)


def answers(language: Language, address: str, model_without_worker: str) -> list[dict]:
    """What it prints when it calls the service at `address`: one JSON object a line."""
    printed = _run(f"{language.run} {address} {model_without_worker}", BUILD / language.name, RUN_LIMIT_S)
    return [json.loads(line) for line in printed.splitlines()]


def _copy_googleapis() -> None:
    """Google's error details, where a checkout of googleapis has them; ours are those of the Python package."""
    source = Path(error_details_pb2.__file__).parent
    target = GOOGLEAPIS / "google" / "rpc"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("code.proto", "error_details.proto"):
        shutil.copyfile(source / name, target / name)


def _run(line: str, folder: Path, limit_s: float) -> str:
    tools = str(Path(sys.executable).parent)  # buf is there
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"GOOGLEAPIS": str(GOOGLEAPIS), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-c", line]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{line}: not done within {limit_s} s") from error
    if done.returncode != 0:
        raise ProgramError(f"{line}: exit status {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout
