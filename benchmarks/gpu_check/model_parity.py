"""The engine with every kernel and attention back-end, over every kind of plan, against the formulas and transformers.

What is right are the vectors by the formulas in float64. In float32 the engine's may differ from them by 1e-6 in
cosine; in 16 bits by 1.5 times what those of transformers in that dtype do, or where there is no transformers, those of
the engine with PyTorch's own operators and SDPA.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Self, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmarks.gpu_check.backends import Backends
from benchmarks.gpu_check.models import Weights, build, config_of, random_weights, weights_to
from benchmarks.gpu_check.reference import reference
from benchmarks.gpu_check.report import Report, Row, parity_row
from benchmarks.gpu_check.twin import Twin
from benchmarks.gpu_check.workloads import PlanCase, plan_cases
from jobqueue.messages import TokenIds
from worker.model.attention import Attention, sdpa
from worker.model.choices import KernelsName
from worker.model.config import Qwen3Config
from worker.model.qwen3 import Qwen3
from worker.packing import pack
from worker.prefix_cache import PrefixKeysValues, PrefixRecorder

_NUM_LAYERS = 4
_FLOAT32_BAR = 1e-6
_TIMES_OTHERS = 1.5

_Errors: TypeAlias = Mapping[str, Tensor]  # by the plan's name: 1 - cosine of each text, float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and texts, with the texts' vectors in float64 by the plan's name."""

    config: Qwen3Config
    weights: Weights
    cases: Sequence[PlanCase]
    exact: Mapping[str, Tensor]

    @classmethod
    def make(cls, size: str, device: torch.device) -> Self:
        config = config_of(size, num_layers=_NUM_LAYERS)
        weights = random_weights(config, device, torch.bfloat16)
        cases = plan_cases(config.vocab_size)
        exact = {case.name: reference(config, weights, case.sequences) for case in cases}
        return cls(config=config, weights=weights, cases=cases, exact=exact)

    def errors_of_model(self, model: Qwen3) -> _Errors:
        return {case.name: self._errors(case, model_vectors(model, case)) for case in self.cases}

    def errors_of_twin(self, twin: Twin) -> _Errors:
        return {case.name: self._errors(case, twin.embed(case.sequences)) for case in self.cases}

    def _errors(self, case: PlanCase, vectors: Tensor) -> Tensor:
        return (1 - cosine_similarity(vectors.double(), self.exact[case.name], dim=1)).clamp(min=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What errors are held to: the mean of others' in the same dtype, or None of those, in float32, a cosine."""

    whose: str
    others: _Errors | None

    def row(self, name: str, errors: _Errors) -> Row:
        if self.others is None:
            worst = {case: float(error.max()) for case, error in errors.items()}
            return parity_row(name, "1 - cosine", worst, _FLOAT32_BAR)
        ratios = {case: float(error.mean() / self.others[case].mean()) for case, error in errors.items()}
        return parity_row(name, f"times the error of {self.whose}", ratios, _TIMES_OTHERS)


def check_models(report: Report, size: str, all_backends: Sequence[Backends], *, has_twin: bool) -> None:
    """Rows of one size for every dtype and every pair of kernels and attention."""
    report.attempt("PARITY", size, partial(_check_size, report, size, all_backends, has_twin=has_twin))


def _check_size(report: Report, size: str, all_backends: Sequence[Backends], *, has_twin: bool) -> Iterator[Row]:
    subject = Subject.make(size, all_backends[0].placement.device)
    for backends in all_backends:
        name = f"{size} {backends.placement.dtype_name}"
        yield from _check_dtype(report, name, subject, backends, has_twin=has_twin)


def _check_dtype(report: Report, name: str, subject: Subject, backends: Backends, *, has_twin: bool) -> Iterator[Row]:
    weights = weights_to(subject.weights, backends.placement.dtype)
    whose, others = _errors_of_others(subject, weights, has_twin=has_twin)
    is_float32 = backends.placement.dtype is torch.float32
    bar = Bar(whose=whose, others=None if is_float32 else others)
    yield bar.row(f"{name} {whose}", others) if is_float32 else _others_row(f"{name} {whose}", others)
    for kernels, (attention_name, attention) in product(backends.kernels, backends.attentions.items()):
        label = f"{name} {kernels} {attention_name}"
        report.attempt("PARITY", label, partial(_check_pair, label, bar, subject, weights, kernels, attention))


def _check_pair(  # noqa: PLR0917 - bound by `partial`
    label: str, bar: Bar, subject: Subject, weights: Weights, kernels: KernelsName, attention: Attention
) -> Iterator[Row]:
    yield bar.row(label, subject.errors_of_model(build(subject.config, weights, kernels, attention)))


def _errors_of_others(subject: Subject, weights: Weights, *, has_twin: bool) -> tuple[str, _Errors]:
    if has_twin:
        return "transformers", subject.errors_of_twin(Twin(subject.config, weights))
    return "torch sdpa itself", subject.errors_of_model(build(subject.config, weights, "torch", sdpa))


def _others_row(name: str, others: _Errors) -> Row:
    means = {case: float(error.mean()) for case, error in others.items()}
    text = "mean 1 - cosine " + ", ".join(f"{case} {mean:.2g}" for case, mean in means.items())
    return Row(kind="PARITY", name=name, text=text, figures={"found": means})


def model_vectors(model: Qwen3, case: PlanCase) -> Tensor:
    """The vectors of the case's texts, of which the prefix was computed with an earlier batch where it has one."""
    device = model.weights.embedding.device
    cached = [_computed_prefix(model, case.prefix, device)] if case.prefix else []
    return model.forward(pack(case.sequences, device, cached=cached, min_shared=case.min_shared))


def _computed_prefix(model: Qwen3, prefix: TokenIds, device: torch.device) -> PrefixKeysValues:
    batch = pack([prefix + prefix[:3], prefix[3:]], device, kept=[prefix])
    recorder = PrefixRecorder([prefix], batch.kept_rows, num_layers=model.config.num_hidden_layers)
    model.forward(batch, recorder.record)
    (kept,) = recorder.recorded()
    return kept
