"""What each choice costs in quality: the same tasks with vectors of other widths and encodings, from several services.

1. A pass is one service, with instructions or without: its texts are computed once, as float32 of the model's width.
2. A row is a width, an encoding and perhaps rescoring. Its vectors are derived from the pass's, and proved: derived.py.
3. Rows are runs like others, with settings, results and cards of their own, so a sweep that was killed goes on.
4. A pass's vectors stay on disk until its last row is finished, and none has failed.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from statistics import fmean

from mteb.abstasks.abstask import AbsTask

from evaluation.bars import Bars
from evaluation.errors import EvaluationError
from evaluation.protocol.instructions import Instructions
from evaluation.protocol.rules import Protocol
from evaluation.protocol.settings import Served, Settings
from evaluation.records.counting import Counts
from evaluation.records.folders import Folders
from evaluation.records.locks import alone_in
from evaluation.records.rows import RowStore
from evaluation.runs.running import Run, run_tasks
from evaluation.service.embedder import Embedder
from evaluation.service.encoder import Encoder
from evaluation.service.encodings import num_bytes
from evaluation.service.rescoring import RescoringSearch
from evaluation.service.served import find_model
from evaluation.service.session import Session
from evaluation.sweeps.choices import Choice, Look
from evaluation.sweeps.derived import DerivedVectors
from evaluation.sweeps.services import Service
from evaluation.tasks.benchmarks import RERANKED_TYPES
from qwen3_client import Client, ModelInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """What came of a choice. `scores` are main scores by task, 0 to 1; a task that failed is not there."""

    served: Served
    instructions: bool
    choice: Choice
    scores: dict[str, float]
    failures: dict[str, str]
    tokens_per_s: float  # of the pass

    @property
    def bytes_per_vector(self) -> int:
        """In the index. Rescoring N documents needs their float32 vectors besides, which may lie on a disk."""
        return num_bytes(self.choice.dimensions, self.choice.encoding)

    @property
    def score(self) -> float | None:
        """The mean over tasks; None where one failed, since the others' mean is another number."""
        return None if self.failures else fmean(self.scores.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What is swept, and where its results go."""

    tasks: Sequence[AbsTask]
    choices: Sequence[Choice]
    instructions: Instructions
    protocols: Sequence[Protocol]
    folders: Folders
    bars: Bars


def check_rescorable(sweep: Sweep) -> None:
    """Raises EvaluationError where a second look is asked for at a task that searches nothing."""
    others = [task.metadata.name for task in sweep.tasks if task.metadata.type not in RERANKED_TYPES]
    if others and any(choice.look != Look() for choice in sweep.choices):
        raise EvaluationError(f"--rescore is for retrieval and reranking, not for {', '.join(others)}")


def run_sweep(sweep: Sweep, services: Iterable[Service], client_at: Callable[[str], Client]) -> Iterator[SweepRow]:
    """Every row, a pass at a time."""
    check_rescorable(sweep)
    for service in services:
        with client_at(service.target) as client:
            model = find_model(client, service.model, "embedding")
            served = Served.of(model, dtype=service.dtype, engine=service.engine, prefix_cache=service.prefix_cache)
            for protocol in sweep.protocols:
                yield from _Pass(sweep, client, model, served, protocol).run()


class _Pass:
    """One service, with instructions or without."""

    def __init__(self, sweep: Sweep, client: Client, model: ModelInfo, served: Served, protocol: Protocol) -> None:
        self._sweep = sweep
        self._client = client
        self._model = model
        self._base = Settings(
            served=served,
            protocol=protocol,
            instructions=sweep.instructions.digest,
            dimensions=model.native_dimensions,
        )
        self._folder = sweep.folders.root / "sweep" / self._base.run_revision
        self._store = RowStore(self._folder)

    def run(self) -> list[SweepRow]:
        with alone_in(self._folder):
            runs = [(choice, self._run(choice)) for choice in map(self._in_full, self._sweep.choices)]
            if not any(run.failed for _, run in runs):
                shutil.rmtree(self._folder)
        counts = reduce(add, (run.card.counts for _, run in runs), Counts())
        return [self._row(choice, run, counts.tokens_per_s) for choice, run in runs]

    def _in_full(self, choice: Choice) -> Choice:
        return replace(choice, dimensions=choice.dimensions or self._model.native_dimensions)

    def _run(self, choice: Choice) -> Run:
        session = self._session(choice)
        computed = Embedder(self._client, self._base, self._store, session.tally, session.bars)
        source = DerivedVectors(computed, self._client, session.settings)
        model = RescoringSearch(session, source) if choice.look.rescore else Encoder(session, source)
        return run_tasks(model, self._sweep.tasks)

    def _session(self, choice: Choice) -> Session:
        settings = replace(
            self._base,
            dimensions=choice.dimensions,
            encoding=choice.encoding,
            float_queries=choice.look.float_queries,
            rescore=choice.look.rescore,
        )
        return Session(
            client=self._client,
            model=self._model,
            settings=settings,
            instructions=self._sweep.instructions,
            folders=self._sweep.folders,
            name=self._model.id,
            bars=self._sweep.bars,
        )

    def _row(self, choice: Choice, run: Run, tokens_per_s: float) -> SweepRow:
        return SweepRow(
            served=self._base.served,
            instructions=self._base.protocol.use_instructions,
            choice=choice,
            scores={result.task_name: result.get_score() for result in run.results},
            failures={task.task.name: task.failure for task in run.failed if task.failure},
            tokens_per_s=tokens_per_s,
        )
