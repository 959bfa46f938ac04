"""The served embedding model as mteb's encoder."""

from typing import Any

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import BatchedInput, PromptType
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from evaluation.service.embedder import Embedder, Vectors
from evaluation.service.session import Session
from qwen3_client.options import Encoding


class Encoder(AbsEncoder):
    """Embeds through the service. Batches are mteb's; how texts travel is the client's.

    Vectors come from `source` where it is given, and all are in `encoding` where it is.
    """

    def __init__(self, session: Session, source: Vectors | None = None, encoding: Encoding | None = None) -> None:
        self.session = session
        self._source = source or Embedder(session.client, session.settings, session.store, session.tally, session.bars)
        self._encoding = encoding

    @property
    def mteb_model_meta(self) -> ModelMeta:  # type: ignore[override] # mteb has an attribute, which is only read
        return self.session.model_meta

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,  # noqa: ARG002 - mteb's argument
        hf_subset: str,  # noqa: ARG002 - likewise
        prompt_type: PromptType | None = None,
        **_: Any,
    ) -> NDArray[np.float32]:
        """(n, dimensions) float32, with the instruction of the task's side."""
        texts = [text for batch in inputs for text in batch["text"]]
        plan = self.session.instructions.plan(task_metadata, self.session.settings.protocol)
        instruction = plan.document if prompt_type is PromptType.document else plan.query
        return self._source.vectors(
            texts, instruction, task=task_metadata.name, encoding=self._encoding or self._encoding_of(prompt_type)
        )

    def _encoding_of(self, prompt_type: PromptType | None) -> Encoding:
        settings = self.session.settings
        return "float32" if settings.float_queries and prompt_type is PromptType.query else settings.encoding
