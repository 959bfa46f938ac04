"""The served reranker as mteb's cross-encoder."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.types import BatchedInput, PromptType
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from evaluation.service.scorer import Pair, Scorer
from evaluation.service.session import Session

CONCURRENCY = 8


class CrossEncoder:
    """Scores pairs through the service, with up to `concurrency` calls of up to 100 documents under way."""

    def __init__(self, session: Session, *, concurrency: int = CONCURRENCY) -> None:
        self.session = session
        self._scorer = Scorer(
            session.client, session.settings, session.store, session.tally, session.bars, concurrency=concurrency
        )

    @property
    def mteb_model_meta(self) -> ModelMeta:
        return self.session.model_meta

    def predict(
        self,
        inputs1: DataLoader[BatchedInput],
        inputs2: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,  # noqa: ARG002 - mteb's argument
        hf_subset: str,  # noqa: ARG002 - likewise
        prompt_type: PromptType | None = None,  # noqa: ARG002 - likewise
        **_: Any,
    ) -> NDArray[np.float32]:
        """(n,) float32: of each of n queries the score of the document in the same place."""
        plan = self.session.instructions.plan(task_metadata, self.session.settings.protocol)
        pairs = (Pair(query, document) for query, document in zip(_texts(inputs1), _texts(inputs2), strict=True))
        return self._scorer.scores(pairs, plan.query, task=task_metadata.name, num_pairs=_num_texts(inputs1))


def _texts(inputs: DataLoader[BatchedInput]) -> Iterator[str]:
    for batch in inputs:
        yield from batch["text"]


def _num_texts(inputs: DataLoader[BatchedInput]) -> int:
    return len(inputs.dataset)  # type: ignore[arg-type] # mteb's datasets have a length
