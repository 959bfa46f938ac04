"""The parts install on their own: a gateway and a client without torch."""

import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST_CALL = (ROOT / "examples" / "first_call.py").read_text()
# vllm brings a torch of its own, which brings a triton; flash-attn is compiled against the torch that is there.
OF_OTHER_ENVIRONMENTS = {"flash-attn", "triton", "vllm"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of the programs of a fresh environment that has one extra and nothing else; made once for each."""

    @functools.cache
    def install(extra: str) -> Path:
        folder = tmp_path_factory.mktemp(extra)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
        python = str(folder / "bin" / "python")
        constraints = str(ROOT / "constraints.txt")
        _pip("--python", python, "install", "--quiet", "-c", constraints, f"{wheel}[{extra}]")
        return folder / "bin"

    return install


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=280).stdout


@pytest.mark.parametrize(
    ("extra", "command", "not_needed"),
    [
        ("gateway", ["qwen3-gateway", "--help"], {"torch", "transformers", "safetensors"}),
        ("client", ["qwen3", "--help"], {"torch", "transformers", "safetensors", "tokenizers", "redis"}),
    ],
)
def test_an_extra_alone_brings_what_its_command_needs_and_no_torch(extra, command, not_needed, installed):
    folder = installed(extra)
    done = subprocess.run([folder / command[0], *command[1:]], capture_output=True, text=True, timeout=60, check=True)
    assert "usage" in done.stdout.lower()
    listed = _pip("--python", str(folder / "python"), "list", "--format=freeze")
    names = {line.split("==")[0].lower() for line in listed.splitlines()}
    assert not names & not_needed
    assert "qwen3-serve" in names


def test_the_first_call_needs_the_client_extra_and_nothing_else(installed, address):
    program = FIRST_CALL.replace("127.0.0.1:50051", address)
    # -I: nothing is imported from this checkout.
    command = [installed("client") / "python", "-I", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert re.match(r"\[\[.+\]\]\n\[RerankHit\(index=0, score=0\.\d+, ", done.stdout)


def test_the_readme_shows_the_first_call_as_it_is():
    shown, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert FIRST_CALL.endswith(f"\n\n{shown}")


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
