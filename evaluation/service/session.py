"""What an adapter and its run have in common."""

from dataclasses import dataclass, field
from functools import cached_property

from mteb.models.model_meta import ModelMeta, ScoringFunction

from evaluation.bars import Bars
from evaluation.protocol.instructions import Instructions
from evaluation.protocol.settings import Settings
from evaluation.records.counting import Tally
from evaluation.records.folders import Folders, RunFolders, full_name
from evaluation.records.rows import RowStore
from qwen3_client import Client, ModelInfo

_MODEL_TYPES = {"embedding": "dense", "rerank": "cross-encoder"}


@dataclass(frozen=True, kw_only=True)
class Session:
    """One served model, evaluated with one configuration. `name` is what its results are kept under."""

    client: Client
    model: ModelInfo
    settings: Settings
    instructions: Instructions
    folders: Folders
    name: str
    bars: Bars = field(default_factory=Bars)
    tally: Tally = field(default_factory=Tally)

    @cached_property
    def run_folders(self) -> RunFolders:
        return self.folders.run(self.name, self.settings.run_revision)

    @cached_property
    def store(self) -> RowStore:
        return RowStore(self.run_folders.rows)

    @cached_property
    def model_meta(self) -> ModelMeta:
        """What mteb keeps beside the results: the revision names every setting."""
        settings = self.settings
        return ModelMeta.create_empty(
            {
                "name": full_name(self.name),
                "revision": settings.run_revision,
                "model_type": [_MODEL_TYPES[settings.served.task]],
                "max_tokens": settings.served.max_input_tokens,
                "embed_dim": settings.dimensions or None,
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": settings.protocol.use_instructions,
            }
        )
