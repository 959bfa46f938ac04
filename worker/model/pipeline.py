"""What sentence-transformers' files say of a checkpoint: its task, its instruction, its yes and no tokens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.model.errors import CheckpointError
from worker.model.files import JsonObject, read_json, read_json_object
from worker.model.task import ModelTask

MODULES_FILE = "modules.json"
PROMPTS_FILE = "config_sentence_transformers.json"

# The model cards' sentence, for embedding and reranking alike.
WEB_SEARCH_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

_QUERY_PROMPT = re.compile(r"Instruct: (.+)\nQuery:", re.DOTALL)
_TASK_MODULES = {"Pooling": ModelTask.EMBED, "LogitScore": ModelTask.RERANK}
# Any other module (a Dense projection, say) changes the result, and we would not apply it.
_HARMLESS_MODULES = ("Transformer", "Normalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """`yes_no` are LogitScore's token ids, for the tokenizer's to be held against."""

    task: ModelTask
    yes_no: tuple[int, int] | None = None


def read_pipeline(folder: Path) -> Pipeline | None:
    """None where there is no `modules.json`; raises CheckpointError for modules that are not ours to apply."""
    modules = read_json(folder, MODULES_FILE)
    if modules is None:
        return None
    paths = _module_paths(modules)
    unknown = paths.keys() - _TASK_MODULES.keys() - set(_HARMLESS_MODULES)
    if unknown:
        raise CheckpointError(f"{MODULES_FILE}: module {min(unknown)} would change the result and is not served")
    heads = paths.keys() & _TASK_MODULES.keys()
    if len(heads) != 1:
        raise CheckpointError(f"{MODULES_FILE}: needs Pooling (embedding) or LogitScore (rerank), one of the two")
    return _read_head(folder, task=_TASK_MODULES[min(heads)], path=paths[min(heads)])


def read_default_instruction(folder: Path, task: ModelTask) -> str:
    """The instruction of the checkpoint's own query prompt, else the model cards' web-search sentence."""
    config = read_json_object(folder, PROMPTS_FILE) or {}
    prompts = config.get("prompts") or {}
    if task is ModelTask.RERANK:
        # sentence-transformers gives the default prompt to the chat template, which uses it as instruction.
        return str(prompts.get(config.get("default_prompt_name")) or WEB_SEARCH_INSTRUCTION)
    if prompts.get("document"):
        raise CheckpointError(f"{PROMPTS_FILE}: prompts.document is not empty, documents are embedded as they are")
    return _instruction_of(prompts.get("query") or "")


def _instruction_of(query_prompt: str) -> str:
    if not query_prompt:
        return WEB_SEARCH_INSTRUCTION
    match = _QUERY_PROMPT.fullmatch(query_prompt)
    if match is None:
        raise CheckpointError(
            f"{PROMPTS_FILE}: prompts.query is {query_prompt!r}, not of the form 'Instruct: ...\\nQuery:'"
        )
    return match[1]


def _module_paths(modules: object) -> dict[str, str]:
    """Last part of each module's type -> its folder; the packages around the classes differ between versions."""
    if not isinstance(modules, list) or not all(_is_module(entry) for entry in modules):
        raise CheckpointError(f"{MODULES_FILE}: not a list of modules with type and path")
    return {str(entry["type"]).rpartition(".")[2]: str(entry["path"]) for entry in modules}


def _is_module(entry: object) -> bool:
    return isinstance(entry, dict) and {"type", "path"} <= entry.keys()


def _read_head(folder: Path, *, task: ModelTask, path: str) -> Pipeline:
    file = f"{path}/config.json"
    values = read_json_object(folder, file)
    if values is None:
        raise CheckpointError(f"{file}: missing, {MODULES_FILE} names it")
    if task is ModelTask.RERANK:
        return Pipeline(task=task, yes_no=_logit_score(file, values))
    _check_pooling(file, values)
    return Pipeline(task=task)


def _check_pooling(file: str, values: JsonObject) -> None:
    mode = values.get("pooling_mode")
    if mode is None:
        mode = [key.removeprefix("pooling_mode_") for key in _switched_on(values)]
    if mode not in ("lasttoken", ["lasttoken"]):
        raise CheckpointError(f"{file}: pooling_mode is {mode!r}, Qwen3-Embedding pools lasttoken")
    if values.get("include_prompt") is False:
        raise CheckpointError(f"{file}: include_prompt is false, the instruction is part of what is embedded")


def _switched_on(values: JsonObject) -> list[str]:
    return [key for key, on in values.items() if key.startswith("pooling_mode_") and on]


def _logit_score(file: str, values: Mapping[str, object]) -> tuple[int, int]:
    yes, no = values.get("true_token_id"), values.get("false_token_id")
    if not isinstance(yes, int) or not isinstance(no, int):
        raise CheckpointError(f"{file}: true_token_id and false_token_id must both be set, not {yes!r} and {no!r}")
    return yes, no
