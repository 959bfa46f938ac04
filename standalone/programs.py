"""The command lines of the gateway and the workers, and their environment."""

import os
import sys
from itertools import product

from runtime.children import Program
from standalone.config import ServeSettings
from standalone.models import ModelSpec

_ONE_MODELS_VARIABLES = ("QWEN3_MODEL", "QWEN3_NAME", "QWEN3_REVISION", "QWEN3_TASK")


def environment(settings: ServeSettings) -> dict[str, str]:
    """Ours with the same settings file, less what names one model: set for all workers, it would make them one.

    Empty and not left out, so that it is not set in the file's [worker] either.
    """
    return {**os.environ, **dict.fromkeys(_ONE_MODELS_VARIABLES, ""), "QWEN3_CONFIG": str(settings.config or "")}


def gateway_program(settings: ServeSettings) -> Program:
    """It is ready once it serves all models: whoever asked it over the network would need credentials for that."""
    models = ",".join(spec.served_id for spec in settings.model_specs)
    options = ("--listen", settings.listen, "--await-models", models, "--log-level", settings.log_level)
    more = (*(("--insecure",) if settings.insecure else ()), *_http_listen(settings, 0))
    return Program(name="gateway", command=(sys.executable, "-m", "gateway", *options, *more))


def worker_programs(settings: ServeSettings) -> tuple[Program, ...]:
    """`workers_per_model` of each model."""
    places = product(settings.model_specs, range(1, settings.workers_per_model + 1))
    return tuple(
        Program(
            name=f"worker {number} of {spec.name}",
            command=(*_worker_command(spec, settings), *_http_listen(settings, place)),
        )
        for place, (spec, number) in enumerate(places, start=1)
    )


def _worker_command(spec: ModelSpec, settings: ServeSettings) -> tuple[str, ...]:
    task = ("--task", spec.task) if spec.task else ()
    num_workers = len(settings.model_specs) * settings.workers_per_model
    options = ("--device", settings.device, "--dtype", settings.dtype, "--log-level", settings.log_level)
    share = ("--device-memory-share", f"{1 / num_workers:.3f}")  # they may all be on one device
    return (sys.executable, "-m", "worker", spec.name, *task, *options, *share)


def _http_listen(settings: ServeSettings, place: int) -> tuple[str, ...]:
    """A port for each process, the same after a restart: the gateway's is the one that was named, in place 0."""
    if settings.http_listen is None:
        return ()
    host, _, port = settings.http_listen.rpartition(":")
    return ("--http-listen", f"{host}:{int(port) + place if int(port) else 0}")
