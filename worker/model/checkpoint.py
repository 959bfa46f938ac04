"""From a model's name to a checkpoint that is known to be servable, before any weight is loaded."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from worker.model.config import Qwen3Config
from worker.model.errors import CheckpointError
from worker.model.files import (
    CONFIG_FILE,
    HUB_PATTERNS,
    REVISION_DIGITS,
    TOKENIZER_FILE,
    JsonObject,
    find_weight_files,
    hash_files,
    read_json_object,
)
from worker.model.pipeline import MODULES_FILE, Pipeline, read_default_instruction, read_pipeline
from worker.model.task import ModelTask
from worker.model.tokenizer import read_tokenizer

__all__ = ["Checkpoint", "CheckpointError", "ModelTask", "resolve_checkpoint"]

# The model cards give 32k for all six published models; some of their config.json say 40960.
MAX_INPUT_TOKENS = 32_768

_PUBLISHED_NAMES = {
    ModelTask.EMBED: re.compile(r"qwen3-embedding-", re.IGNORECASE),
    ModelTask.RERANK: re.compile(r"qwen3-reranker-", re.IGNORECASE),
}
_ARCHITECTURES = {
    # sentence-transformers saves a fine-tuned embedding model without its head.
    ModelTask.EMBED: ("Qwen3ForCausalLM", "Qwen3Model"),
    ModelTask.RERANK: ("Qwen3ForCausalLM",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint folder whose files were read and found servable; the weights are still on disk.

    `yes_no` are the token ids of a reranker's two answers, None for embedding.
    """

    folder: Path
    model_id: str
    task: ModelTask
    revision: str
    config: Qwen3Config
    tokenizer_json: bytes
    default_instruction: str
    weight_files: list[Path]
    yes_no: tuple[int, int] | None

    @property
    def max_input_tokens(self) -> int:
        return min(self.config.max_position_embeddings, MAX_INPUT_TOKENS)


def resolve_checkpoint(
    model: str, *, task: ModelTask | None, name: str | None, revision: str | None, any_forward: bool = False
) -> Checkpoint:
    """Find and check `model`, a folder or a hub id (then downloaded, which may take minutes).

    `revision` is the git revision to download, or what a folder is to be called instead of its hash. `name`
    replaces the model id. With `any_forward`, the forward pass may be a variant that another engine computes. Raises
    CheckpointError, naming file and field, for what cannot be served exactly.
    """
    folder, model_id, git_revision = _locate(model, revision)
    pipeline = read_pipeline(folder)
    task = _decide_task(model, given=task, pipeline=pipeline)
    config = _read_config(folder, task, any_forward=any_forward)
    weight_files = find_weight_files(folder)
    tokenizer = read_tokenizer(folder, task, vocab_size=config.vocab_size)
    _check_yes_no(pipeline, tokenizer.yes_no)
    return Checkpoint(
        folder=folder,
        model_id=name or model_id,
        task=task,
        revision=git_revision or revision or _hash_folder(folder, weight_files),
        config=config,
        tokenizer_json=tokenizer.json,
        default_instruction=read_default_instruction(folder, task),
        weight_files=weight_files,
        yes_no=tokenizer.yes_no,
    )


def _locate(model: str, revision: str | None) -> tuple[Path, str, str | None]:
    """Folder, model id, and for a hub model the commit's first digits."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve(), folder.resolve().name, None
    try:
        snapshot = Path(snapshot_download(model, revision=revision, allow_patterns=list(HUB_PATTERNS)))
    except HFValidationError as error:
        raise CheckpointError(f"{model!r} is neither an existing folder nor a hub id") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{model!r} is no folder here and was not downloaded: {error}") from error
    return snapshot, model, snapshot.name[:REVISION_DIGITS]


def _decide_task(model: str, *, given: ModelTask | None, pipeline: Pipeline | None) -> ModelTask:
    if pipeline is not None:
        if given not in (None, pipeline.task):
            raise CheckpointError(f"{MODULES_FILE}: says {pipeline.task}, but the task given is {given}")
        return pipeline.task
    if given is not None:
        return given
    for task, published in _PUBLISHED_NAMES.items():
        if published.search(model):
            return task
    raise CheckpointError(f"{MODULES_FILE}: missing, so the task must be given: embedding or rerank")


def _read_config(folder: Path, task: ModelTask, *, any_forward: bool) -> Qwen3Config:
    values = read_json_object(folder, CONFIG_FILE)
    if values is None:
        raise CheckpointError(f"{CONFIG_FILE}: missing in {folder}")
    _check_architecture(values, task)
    return Qwen3Config.from_json(values, any_forward=any_forward)


def _check_architecture(values: JsonObject, task: ModelTask) -> None:
    found = values.get("architectures")
    accepted = _ARCHITECTURES[task]
    if not isinstance(found, list) or len(found) != 1 or found[0] not in accepted:
        raise CheckpointError(f"{CONFIG_FILE}: architectures is {found!r}, {task} needs {' or '.join(accepted)}")


def _check_yes_no(pipeline: Pipeline | None, tokenizers: tuple[int, int] | None) -> None:
    if pipeline is not None and pipeline.yes_no != tokenizers:
        raise CheckpointError(
            f"LogitScore's true_token_id, false_token_id are {pipeline.yes_no}, "
            f"{TOKENIZER_FILE}'s yes, no are {tokenizers}"
        )


def _hash_folder(folder: Path, weight_files: list[Path]) -> str:
    return hash_files([folder / CONFIG_FILE, folder / TOKENIZER_FILE, *weight_files])
