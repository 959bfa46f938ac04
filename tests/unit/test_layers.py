"""What import-linter cannot see: that nothing stands outside of its contracts."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_SHIPPED = {"docs", "examples", "tests", "build", "deploy"}


def packages() -> set[str]:
    found = {folder.name for folder in ROOT.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}
    return found - NOT_SHIPPED | {"qwen3"}


def test_every_top_level_package_has_its_place_in_the_layers():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    placed = {name.strip() for layer in layers for name in layer.split("|")}
    assert packages() == placed == set(settings["root_packages"])


def test_every_package_but_the_benchmarks_is_shipped():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {Path(name).name for name in settings["packages"]} == packages() - {"benchmarks"}
