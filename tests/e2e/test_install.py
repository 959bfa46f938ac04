"""The parts install on their own: a gateway and a client without torch."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# vllm brings a torch of its own, which brings a triton; flash-attn is compiled against the torch that is there.
OF_OTHER_ENVIRONMENTS = {"flash-attn", "triton", "vllm"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _pip(sys.executable, "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


def _pip(python: str, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", *arguments], check=True, timeout=280)


@pytest.mark.parametrize(
    ("extra", "command"), [("gateway", ["qwen3-gateway", "--help"]), ("client", ["qwen3", "--help"])]
)
def test_an_extra_alone_brings_what_its_command_needs_and_no_torch(extra, command, wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True, timeout=120)
    python, bin_folder = str(tmp_path / "bin" / "python"), tmp_path / "bin"
    _pip(python, "install", "--quiet", "-c", str(ROOT / "constraints.txt"), f"{wheel}[{extra}]")
    done = subprocess.run(
        [bin_folder / command[0], *command[1:]], capture_output=True, text=True, timeout=60, check=True
    )
    assert "usage" in done.stdout.lower()
    installed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    names = {line.split("==")[0].lower() for line in installed.stdout.splitlines()}
    assert not names & {"torch", "transformers", "safetensors"}
    assert "qwen3-serve" in names


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [name for group in project["project"]["optional-dependencies"].values() for name in group]
    declared += project["dependency-groups"]["dev"]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in _constraints()}
    names = {_name(requirement) for requirement in declared} - {"qwen3-serve"}
    assert names - OF_OTHER_ENVIRONMENTS <= pinned
    assert "torch==2.13.0" in _constraints()


def _constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _name(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0].lower()
