"""A loaded model, and the step that turns jobs into answers."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from jobqueue.messages import Answer, Failure, FailureReason, Job, Operation, Result, TokenIds
from runtime.settings import SettingError
from worker.heads import EncodedRows, embed_rows, score_rows
from worker.model.attention import select_attention
from worker.model.checkpoint import Checkpoint, ModelTask
from worker.model.qwen3 import Qwen3
from worker.model.weights import load_weights
from worker.packing import count_computed_tokens, pack

OPERATIONS = {ModelTask.EMBED: Operation.EMBED, ModelTask.RERANK: Operation.RERANK}

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and in what a model runs. `dtype` is the name that logs and announcements use."""

    device: torch.device
    dtype: str

    @classmethod
    def choose(cls, device: str, dtype: str) -> "Placement":
        """Resolve `auto`: CUDA where there is one, bfloat16 there and float32 on the CPU. Raises SettingError."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SettingError(f"--device {device}: this machine has no CUDA device, or torch no CUDA")
        if dtype == "auto":
            dtype = "bfloat16" if device.startswith("cuda") else "float32"
        return cls(device=torch.device(device), dtype=dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """Jobs and their pooled hidden states, (sequences of all jobs, hidden size) float32 on the CPU."""

    jobs: Sequence[Job]
    hidden: Tensor
    compute_us: int


class Engine:
    """One model on one device. `compute` and `answers` may run in two threads, each in one at a time."""

    def __init__(self, checkpoint: Checkpoint, placement: Placement, *, max_input_tokens: int) -> None:
        """Load the weights; raises CheckpointError where they do not fit the config."""
        dtype = _DTYPES[placement.dtype]
        self.attention_name, attention = select_attention(placement.device, dtype)
        weights = load_weights(
            checkpoint.weight_files,
            checkpoint.config,
            device=placement.device,
            dtype=dtype,
            yes_no=checkpoint.yes_no,
        )
        self._model = Qwen3(checkpoint.config, weights, attention)
        self._yes_minus_no = None if weights.yes_minus_no is None else weights.yes_minus_no.cpu()
        self._device = placement.device
        self._operation = OPERATIONS[checkpoint.task]
        self._max_input_tokens = max_input_tokens

    def check(self, job: Job) -> Failure | None:
        """Why this model cannot run the job, which only a gateway that disagrees with it could have sent."""
        config = self._model.config
        ids = [job.prefix, *job.tails]
        if job.operation is not self._operation:
            return _invalid(f"a job for {job.operation.name} in the queue of a model for {self._operation.name}")
        if max(job.lengths) > self._max_input_tokens:
            return _invalid(f"{max(job.lengths)} tokens, the worker takes {self._max_input_tokens}")
        if any(part and not 0 <= min(part) <= max(part) < config.vocab_size for part in ids):
            return _invalid("a token id outside of the vocabulary")
        if job.operation is Operation.EMBED and not 1 <= job.dimensions <= config.hidden_size:
            return _invalid(f"{job.dimensions} dimensions of {config.hidden_size}")
        return None

    def compute(self, jobs: Sequence[Job]) -> Computed:
        """One forward pass over all sequences of all jobs."""
        started = time.perf_counter()
        batch = pack([sequence for job in jobs for sequence in _sequences(job)], self._device)
        hidden = self._model.forward(batch).float().cpu()
        return Computed(jobs=jobs, hidden=hidden, compute_us=int((time.perf_counter() - started) * 1e6))

    def answers(self, computed: Computed, queue_us: Sequence[int]) -> list[Answer]:
        """One answer per job, in order; a job with a non-finite row fails and leaves the others unharmed."""
        borders = accumulate((len(job.tails) for job in computed.jobs), initial=0)
        return [
            _answer(job, self._head(job, computed.hidden[begin:end]), computed.compute_us, waited_us)
            for job, (begin, end), waited_us in zip(computed.jobs, pairwise(borders), queue_us, strict=True)
        ]

    def _head(self, job: Job, hidden: Tensor) -> EncodedRows:
        if self._yes_minus_no is not None:
            return score_rows(hidden, self._yes_minus_no)
        return embed_rows(hidden, job.dimensions, normalize=job.normalize, encoding=job.encoding)


def _sequences(job: Job) -> Iterator[TokenIds]:
    return (job.prefix + tail for tail in job.tails)


def _answer(job: Job, encoded: EncodedRows, compute_us: int, queue_us: int) -> Answer:
    if not all(encoded.finite):
        return Failure(
            reason=FailureReason.NON_FINITE_RESULT,
            message="the model's result is not finite",
            sequence=encoded.finite.index(False),
        )
    return Result(
        rows=encoded.rows,
        num_rows=len(job.tails),
        scales=encoded.scales,
        computed_tokens=count_computed_tokens(list(_sequences(job))),
        queue_us=queue_us,
        compute_us=compute_us,
    )


def _invalid(message: str) -> Failure:
    return Failure(reason=FailureReason.INVALID_JOB, message=message)
