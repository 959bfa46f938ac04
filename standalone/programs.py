"""The command lines of the gateway and the workers."""

import sys

from standalone.children import Program
from standalone.config import ServeSettings
from standalone.models import ModelSpec


def gateway_program(settings: ServeSettings) -> Program:
    options = ("--listen", settings.listen, "--log-level", settings.log_level)
    return Program(name="gateway", command=(sys.executable, "-m", "gateway", *options))


def worker_programs(settings: ServeSettings) -> tuple[Program, ...]:
    """`workers_per_model` of each model."""
    return tuple(
        Program(name=f"worker {number} of {spec.name}", command=_worker_command(spec, settings))
        for spec in settings.model_specs
        for number in range(1, settings.workers_per_model + 1)
    )


def _worker_command(spec: ModelSpec, settings: ServeSettings) -> tuple[str, ...]:
    task = ("--task", spec.task) if spec.task else ()
    num_workers = len(settings.model_specs) * settings.workers_per_model
    options = ("--device", settings.device, "--dtype", settings.dtype, "--log-level", settings.log_level)
    share = ("--device-memory-share", f"{1 / num_workers:.3f}")  # they may all be on one device
    return (sys.executable, "-m", "worker", spec.name, *task, *options, *share)
