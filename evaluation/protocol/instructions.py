"""Where a task's instruction comes from.

The user's file; else the list that mteb ships, which was adapted from the authors'; else mteb's own prompt of the task,
or of its type; for a task that mteb does not know, what the models use by default.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import cast

from mteb.abstasks.abstask import get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.get_tasks import TASK_LIST
from mteb.models.model_implementations.tarka_models import tarka_embedding_350_v1_instruction_prompts

from evaluation.errors import EvaluationError
from evaluation.protocol.rules import (
    DEFAULT_INSTRUCTION,
    PlannedInstruction,
    Protocol,
    TaskInstruction,
    plan_instruction,
)

Said = Mapping[str, str | Mapping[str, str]]  # of each task: a sentence, or one for "query" and "passage" each

FROM_FILE = "file"
FROM_LIST = "mteb's list"
FROM_TASK = "mteb's prompt of the task"
FROM_TYPE = "mteb's prompt of the type"
FROM_DEFAULT = "the models' default"


class Instructions:
    """The instruction of every task. `file` is a JSON object as the authors' task_prompts.json is one.

    Raises EvaluationError for a file that is something else.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._by_source: dict[str, Said] = {
            FROM_FILE: {} if file is None else _read(file),
            FROM_LIST: cast("Said", tarka_embedding_350_v1_instruction_prompts),
        }

    @property
    def digest(self) -> str:
        """Differs where any sentence of the file or of the list does."""
        return hashlib.sha256(json.dumps(self._by_source, sort_keys=True).encode()).hexdigest()

    def of(self, task: TaskMetadata) -> TaskInstruction:
        """What is said of a task."""
        for source, said in self._by_source.items():
            if task.name in said:
                return _task_instruction(said[task.name], source)
        return _own_prompt(task)

    def plan(self, task: TaskMetadata, protocol: Protocol) -> PlannedInstruction:
        """What each side of a task is sent with."""
        return plan_instruction(task.name, task.type, self.of(task), protocol)


def _task_instruction(said: str | Mapping[str, str], source: str) -> TaskInstruction:
    if isinstance(said, str):
        return TaskInstruction(query=said, source=source)
    return TaskInstruction(query=said.get("query", ""), document=said.get("passage"), source=source)


def _own_prompt(task: TaskMetadata) -> TaskInstruction:
    """What mteb has for documents is not the authors', who have nothing there: left out."""
    query = task.prompt.get("query") if isinstance(task.prompt, dict) else task.prompt
    if query:
        return TaskInstruction(query=query, source=FROM_TASK)
    if task.name in _names_in_mteb():
        return TaskInstruction(query=get_abstask_prompt(task.name), source=FROM_TYPE)
    return TaskInstruction(query=DEFAULT_INSTRUCTION, source=FROM_DEFAULT)


@cache
def _names_in_mteb() -> frozenset[str]:
    return frozenset(task.metadata.name for task in TASK_LIST)


def _read(file: Path) -> Said:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationError(f"{file}: not JSON: {error}") from error
    if not isinstance(said, dict):
        raise EvaluationError(f"{file}: not a JSON object of task names")
    for task, sentences in said.items():
        if not _is_said(sentences):
            raise EvaluationError(f"{file}: {task} has neither a sentence nor one for each of query and passage")
    return said


def _is_said(sentences: object) -> bool:
    if isinstance(sentences, dict):
        return set(sentences) <= {"query", "passage"} and all(isinstance(text, str) for text in sentences.values())
    return isinstance(sentences, str)
