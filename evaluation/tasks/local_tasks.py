"""A retrieval task of mteb from a local folder, for a team's own data. local_data.py says how the folder looks.

`task.toml` in the folder may say more of it:

    name = "tickets"                    # else the folder's
    instruction = "Given a customer's question, retrieve the answer that solved it"
    splits = ["dev"]                    # else test, or the only one
    languages = ["eng-Latn"]            # with several subsets a table, such as {de = ["deu-Latn"]}
"""

import tomllib
from pathlib import Path

from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.get_tasks import TASK_LIST
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.tasks.local_data import (
    DEFAULT_SPLIT,
    DEFAULT_SUBSET,
    DataError,
    digest,
    files_of,
    read_set,
    splits_in,
    subsets_in,
)

TASK_FILE = "task.toml"
UNKNOWN_LANGUAGE = "und-Zyyy"


class _TaskFile(BaseModel):
    """What `task.toml` may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(None, pattern=r"^[\w.-]+$")
    instruction: str | None = Field(None, min_length=1)
    splits: list[str] | None = Field(None, min_length=1)
    languages: list[str] | dict[str, list[str]] | None = None


class LocalTask(AbsTaskRetrieval):
    """A task whose data is in memory from the start."""

    def __init__(self, metadata: TaskMetadata, dataset: dict[str, dict[str, RetrievalSplitData]]) -> None:
        self.metadata = metadata
        super().__init__()
        self.dataset = dataset
        self.data_loaded = True


def load(folder: Path) -> LocalTask:
    """The task in `folder`; its revision is a digest of its files and its instruction.

    Raises DataError for what cannot be read, and for a name that a task of mteb has: the results of both would be
    mixed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    file = _task_file(folder)
    subsets = subsets_in(folder)
    splits = file.splits or _usual_splits(folder, subsets[0])
    return LocalTask(
        TaskMetadata(
            name=_name(folder, file),
            description=f"Local data: {folder.name}",
            type="Retrieval",
            category="t2t",
            dataset={"path": str(folder), "revision": _revision(folder, subsets, splits, file.instruction or "")},
            eval_splits=splits,
            eval_langs=_languages(folder, file, subsets),
            main_score="ndcg_at_10",
            prompt={"query": file.instruction} if file.instruction else None,
        ),
        {subset: {split: _split_data(folder, subset, split) for split in splits} for subset in subsets},
    )


def _task_file(folder: Path) -> _TaskFile:
    path = folder / TASK_FILE
    if not path.exists():
        return _TaskFile()
    try:
        return _TaskFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:  # TOML or UTF-8; the message has the line
        raise DataError(f"{path}: {error}") from error


def _name(folder: Path, file: _TaskFile) -> str:
    name = file.name or folder.resolve().name
    if any(task.metadata.name == name for task in TASK_LIST):
        raise DataError(f"{folder}: {name} is a task of mteb: give it another name in {TASK_FILE}")
    return name


def _usual_splits(folder: Path, subset: str) -> list[str]:
    splits = splits_in(folder, subset)
    usual = [DEFAULT_SPLIT] if DEFAULT_SPLIT in splits else splits
    if len(usual) != 1:
        raise DataError(f"{folder}: has the splits {', '.join(splits)}: name those to use in {TASK_FILE}")
    return usual


def _languages(folder: Path, file: _TaskFile, subsets: list[str]) -> list[str] | dict[str, list[str]]:
    """As mteb has them: a list for a set without subsets, else a table."""
    languages = file.languages or [UNKNOWN_LANGUAGE]
    by_subset = languages if isinstance(languages, dict) else dict.fromkeys(subsets, languages)
    if sorted(by_subset) != subsets:
        raise DataError(f"{folder / TASK_FILE}: languages: needs the subsets {', '.join(subsets)}")
    return by_subset[DEFAULT_SUBSET] if subsets == [DEFAULT_SUBSET] else by_subset


def _revision(folder: Path, subsets: list[str], splits: list[str], instruction: str) -> str:
    return digest(
        [file for subset in subsets for split in splits for file in files_of(folder, subset, split)], instruction
    )


def _split_data(folder: Path, subset: str, split: str) -> RetrievalSplitData:
    found = read_set(folder, subset, split)
    return RetrievalSplitData(
        corpus=Dataset.from_list(found.corpus),
        queries=Dataset.from_list(found.queries),
        relevant_docs=found.relevance,
        top_ranked=None,
    )
