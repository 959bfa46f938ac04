"""Measures typical batches with the kernels and attention that the worker chooses, and transformers beside them."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch

from benchmarks.gpu_check.backends import Backends
from benchmarks.gpu_check.flops import Flops, count_flops
from benchmarks.gpu_check.models import build, config_of, random_weights
from benchmarks.gpu_check.profiling import profile_rows, take_profile
from benchmarks.gpu_check.report import Report, Row
from benchmarks.gpu_check.speed import Speed, speed_row
from benchmarks.gpu_check.timing import Deadline, peak_memory_gib, time_ms, wall_ms
from benchmarks.gpu_check.twin import Twin
from benchmarks.gpu_check.workloads import RandomIds, Workload
from worker.model.qwen3 import Qwen3
from worker.packing import pack

_NUM_BATCHES, _NUM_TWIN_BATCHES = 7, 4
_NUM_WARM_UPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A loaded model, and transformers' own over the same weights where there is one."""

    size: str
    name: str
    model: Qwen3
    twin: Twin | None
    device: torch.device

    @classmethod
    def load(cls, size: str, backends: Backends, *, num_layers: int | None, has_twin: bool) -> Self:
        placement, kernels = backends.placement, backends.kernels[0]
        attention_name, attention = next(iter(backends.attentions.items()))
        config = config_of(size, num_layers=num_layers)
        weights = random_weights(config, placement.device, placement.dtype)
        return cls(
            size=size,
            name=f"{size} {placement.dtype_name} {config.num_hidden_layers} layers {kernels} {attention_name}",
            model=build(config, weights, kernels, attention),
            twin=Twin(config, weights) if has_twin else None,
            device=placement.device,
        )

    def measure(self, workload: Workload, *, peak_tflops: float) -> Speed:
        """Ids are drawn anew for every batch; the first ones warm up."""
        ids = RandomIds(self.model.config.vocab_size, seed=1)
        with peak_memory_gib(self.device) as peak_gib:
            runs = [self._run(workload, ids) for _ in range(_NUM_BATCHES)]
            most_gib = peak_gib()
        return Speed(
            size=self.size,
            workload=workload.name,
            num_texts=len(workload.own_lengths),
            num_tokens=workload.num_tokens,
            num_computed=runs[-1].num_computed,
            flops=runs[-1].flops,
            forward_ms=statistics.median(run.forward_ms for run in runs[_NUM_WARM_UPS:]),
            plan_ms=statistics.median(run.plan_ms for run in runs[_NUM_WARM_UPS:]),
            twin_ms=self._measure_twin(workload, ids),
            peak_gib=most_gib,
            peak_tflops=peak_tflops,
        )

    def profile(self, workload: Workload, *, peak_tflops: float) -> Iterator[Row]:
        batch = pack(workload.draw(RandomIds(self.model.config.vocab_size, seed=2)), self.device)
        found = take_profile(self.device, lambda: self.model.forward(batch))
        flops = count_flops(self.model.config, batch)
        return profile_rows(f"{self.name}, {workload.name}", found, flops, peak_tflops=peak_tflops)

    def _run(self, workload: Workload, ids: RandomIds) -> "_Run":
        sequences = workload.draw(ids)
        plan_ms = wall_ms(self.device, lambda: pack(sequences, self.device))
        batch = pack(sequences, self.device)
        return _Run(
            num_computed=batch.num_tokens,
            flops=count_flops(self.model.config, batch),
            plan_ms=plan_ms,
            forward_ms=time_ms(self.device, lambda: self.model.forward(batch)),
        )

    def _measure_twin(self, workload: Workload, ids: RandomIds) -> float | None:
        if self.twin is None or not workload.is_compared:
            return None
        times_ms = []
        for _ in range(_NUM_TWIN_BATCHES):
            batches = self.twin.pad(workload.draw(ids))
            times_ms.append(time_ms(self.device, partial(self.twin.forward, batches)))
        return statistics.median(times_ms[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One batch."""

    num_computed: int
    flops: Flops
    plan_ms: float
    forward_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedPlan:
    """What is to be measured, until when, and what its FLOPs are compared to. `num_layers` None means all."""

    num_layers: int | None
    workloads: tuple[Workload, ...]
    peak_tflops: float
    has_twin: bool
    deadline: Deadline


def check_speed(report: Report, size: str, plan: SpeedPlan, backends: Backends) -> None:
    """A row for each workload, as long as there is time; where one misses its target, a profile that says why."""
    report.attempt("SPEED", size, partial(_check_size, report, size, plan, backends))


def _check_size(report: Report, size: str, plan: SpeedPlan, backends: Backends) -> Iterator[Row]:
    if plan.deadline.has_passed():
        yield from (_out_of_time(f"{size}, {workload.name}") for workload in plan.workloads)
        return
    candidate = Candidate.load(size, backends, num_layers=plan.num_layers, has_twin=plan.has_twin)
    for workload in plan.workloads:
        name = f"{candidate.name}, {workload.name}"
        if plan.deadline.has_passed():
            yield _out_of_time(name)
        else:
            report.attempt("SPEED", name, partial(_check_workload, candidate, workload, plan.peak_tflops))


def _check_workload(candidate: Candidate, workload: Workload, peak_tflops: float) -> Iterator[Row]:
    row = speed_row(candidate.name, candidate.measure(workload, peak_tflops=peak_tflops))
    yield row
    if row.missed:
        yield from candidate.profile(workload, peak_tflops=peak_tflops)


def _out_of_time(name: str) -> Row:
    return Row(kind="SKIPPED", name=f"SPEED {name}", text="out of time")
