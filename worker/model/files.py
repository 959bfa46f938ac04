"""Which files of a checkpoint folder are read, and what identifies them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from worker.model.errors import CheckpointError

JsonObject: TypeAlias = Mapping[str, Any]

HUB_PATTERNS = (
    "config.json",
    "tokenizer*.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "modules.json",
    "config_sentence_transformers.json",
    "*/config.json",
)
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
REVISION_DIGITS = 12


def read_json(folder: Path, name: str) -> Any:
    """The parsed content of `folder/name`, or None where there is no such file."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{name}: not JSON: {error}") from error


def read_json_object(folder: Path, name: str) -> JsonObject | None:
    content = read_json(folder, name)
    if content is not None and not isinstance(content, dict):
        raise CheckpointError(f"{name}: not a JSON object")
    return content


def find_weight_files(folder: Path) -> list[Path]:
    """The safetensors files, sorted by name; raises CheckpointError where one is missing."""
    index = read_json_object(folder, WEIGHTS_INDEX_FILE)
    if index is None:
        return [_existing(folder, WEIGHTS_FILE)]
    names = sorted(set(index.get("weight_map", {}).values()))
    if not names:
        raise CheckpointError(f"{WEIGHTS_INDEX_FILE}: weight_map is empty")
    return [_existing(folder, _plain_name(name)) for name in names]


def hash_files(files: Sequence[Path]) -> str:
    """The first hexadecimal digits of a SHA-256 over the files' contents in order; a large file is streamed."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:REVISION_DIGITS]


def _plain_name(name: str) -> str:
    if Path(name).name != name:
        raise CheckpointError(f"{WEIGHTS_INDEX_FILE}: weight_map names {name!r}, which is not a file of the folder")
    return name


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if path.is_file():
        return path
    pickled = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if pickled:
        raise CheckpointError(
            f"{pickled[0]}: pickled weights are never loaded, since loading one can run any code: convert them with "
            "transformers' save_pretrained, which writes safetensors"
        )
    raise CheckpointError(f"{name}: missing (weights are read from safetensors only)")
