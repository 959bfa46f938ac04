"""Results as mteb writes them, with scores that a generator made up, and the run cards beside them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from mteb import ResultCache
from mteb.abstasks import AbsTask
from mteb.models.model_meta import ModelMeta
from mteb.results import TaskResult

from evaluation.protocol.rules import PlannedInstruction, Protocol
from evaluation.protocol.settings import Served, Settings
from evaluation.records.card import RunCard, TaskCard, write_card
from evaluation.records.counting import Counts
from evaluation.records.folders import Folders
from evaluation.tasks.facts import TaskFacts
from qwen3_client import ModelInfo

MODEL = ModelInfo(
    id="Qwen/Qwen3-Embedding-0.6B",
    task="embedding",
    revision="c54f2e6e80b2",
    state="serving",
    native_dimensions=1024,
    min_dimensions=32,
    max_input_tokens=8192,
    max_batch_inputs=256,
    encodings=("float32", "int8"),
    default_instruction="Given a web search query, retrieve relevant passages that answer the query",
    default_for_task=True,
)
SETTINGS = Settings(
    served=Served.of(MODEL, dtype="bfloat16", engine="packed"),
    protocol=Protocol(),
    instructions="0123456789ab",
    dimensions=1024,
)
CARD = RunCard(
    started="2026-11-24T03:00:00+00:00",
    finished="2026-11-24T04:00:00+00:00",
    benchmark=None,
    model=asdict(MODEL) | {"encodings": [*MODEL.encodings]},  # as JSON has it
    settings=asdict(SETTINGS),
    cache_key=SETTINGS.key,
    versions={"mteb": "2.26.24"},
    deviations=(),
    tasks=(),
)


def write_results(
    root: Path,
    tasks: Iterable[AbsTask],
    *,
    seed: int = 0,
    model: str = MODEL.id,
    revision: str = SETTINGS.run_revision,
    scores: Mapping[str, float] | None = None,
) -> Path:
    """Results of all subsets in all splits, from 0 to 1; `scores` fixes those of a task. Returns the run's folder."""
    generator = np.random.default_rng(seed)
    cache = ResultCache(root)
    meta = ModelMeta.create_empty({"name": model, "revision": revision})
    for task in tasks:
        drawn = {
            split: {subset: _entry(task, float(generator.random()), scores or {}) for subset in task.hf_subsets}
            for split in task.eval_splits
        }
        cache.save_to_cache(TaskResult.from_task_results(task, drawn, evaluation_time=1.0), meta)
    return Folders(root).run(model, revision).results


def write_card_of(root: Path, tasks: Iterable[AbsTask], **changes: object) -> None:
    """The card of a run that was asked for these tasks."""
    instruction = PlannedInstruction(query="Find it", document=None, source="a test")
    counts = Counts(num_texts=10, num_tokens=1000, num_sent_texts=8, num_sent_tokens=800, seconds=2.0)
    cards = tuple(TaskCard(task=TaskFacts.of(task), instruction=instruction, counts=counts) for task in tasks)
    write_card(Folders(root).run(MODEL.id, SETTINGS.run_revision).cards, replace(CARD, tasks=cards, **changes))


def _entry(task: AbsTask, drawn: float, scores: Mapping[str, float]) -> dict[str, float]:
    score = scores.get(task.metadata.name, drawn)
    return {"main_score": score, task.metadata.main_score: score}
