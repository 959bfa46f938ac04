"""Everything that changes a score, and the key that results are kept under.

mteb finds old results by model name, revision and task. So the revision that it is told names every setting: a run
with another setting never finds the results of this one.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Literal

from evaluation.protocol.rules import AUTHORS_FIRST_STAGE, AUTHORS_MAX_INPUT_TOKENS, AUTHORS_TOP_K, Protocol
from qwen3_client import ModelInfo
from qwen3_client.options import Encoding, ScoreType

Dtype = Literal["float32", "bfloat16", "float16"]
KEY_DIGITS = 12
RERANK_TEMPLATE = "fields joined by one line break, as in the model card; the authors' scripts join them by two"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What answers.

    The service does not tell `dtype`, `engine` and `prefix_cache`, which its workers were started with: whoever
    evaluates says so. `native_dimensions` is 0 for a reranker.
    """

    model: str
    task: str
    revision: str
    max_input_tokens: int
    dtype: str
    engine: str
    prefix_cache: bool = True
    native_dimensions: int = 0

    @classmethod
    def of(cls, model: ModelInfo, *, dtype: Dtype, engine: str, prefix_cache: bool = True) -> "Served":
        """A model as it is served now."""
        return cls(
            model=model.id,
            task=model.task,
            revision=model.revision,
            max_input_tokens=model.max_input_tokens,
            dtype=dtype,
            engine=engine,
            prefix_cache=prefix_cache,
            native_dimensions=model.native_dimensions,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStage:
    """Whose candidates a reranker is given: `run` is the `Settings.run_revision` of the embedding run."""

    model: str
    run: str
    top_k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One configuration, whose scores are comparable. Fields of the other task keep their defaults.

    `mteb` is its installed version: its tasks, prompts and scores change with it. `instructions` is the digest of the
    per-task instructions beside mteb's prompts. `dimensions` is the width of the vectors, 0 for a
    reranker. `float_queries` leaves queries float32 where documents are not; `rescore` is how many of a query's best
    documents are scored again with float32 vectors, 0 for none: see service/rescoring.py.
    """

    served: Served
    protocol: Protocol = field(default_factory=Protocol)
    instructions: str
    dimensions: int = 0
    encoding: Encoding = "float32"
    float_queries: bool = False
    rescore: int = 0
    score_type: ScoreType = "probability"
    first_stage: FirstStage | None = None
    mteb: str = field(default_factory=lambda: version("mteb"))

    @property
    def key(self) -> str:
        """12 hexadecimal digits that differ where any setting does."""
        canonical = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:KEY_DIGITS]

    def deviations(self) -> list[str]:
        """What is not as the authors evaluate: names and values, and of a reranker a sentence on its template."""
        stage = self.first_stage or FirstStage(model=AUTHORS_FIRST_STAGE, run="", top_k=AUTHORS_TOP_K)
        ours = {
            "max_input_tokens": (self.served.max_input_tokens, AUTHORS_MAX_INPUT_TOKENS),
            "dimensions": (self.dimensions, self.served.native_dimensions),
            "encoding": (self.encoding, "float32"),
            "float_queries": (self.float_queries, False),
            "rescore": (self.rescore, 0),
            "score_type": (self.score_type, "probability"),
            "first_stage": (stage.model.rpartition("/")[2], AUTHORS_FIRST_STAGE),
            "top_k": (stage.top_k, AUTHORS_TOP_K),
        }
        others = [f"{name}={value}" for name, (value, authors) in ours.items() if value != authors]
        template = [RERANK_TEMPLATE] if self.served.task == "rerank" else []
        return [*self.protocol.deviations(), *others, *template]

    @property
    def run_revision(self) -> str:
        """What mteb is told as the model's revision, and a folder's name: the served revision and the key."""
        return f"{_as_folder_name(self.served.revision)}-{self.key}"


def _as_folder_name(text: str) -> str:
    """Two names that become one are kept apart by the key."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)
