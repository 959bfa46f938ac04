"""The service that the clients call: a gateway, a worker for each task, and a model whose worker has left."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from jobqueue.consumer import TakenJob
from jobqueue.messages import Answer, Job, Operation
from qwen3.inference.v1.model_pb2 import ListModelsRequest
from tests.support.echo import EchoWorker, eventually
from tests.support.processes import Process, gateway
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import Stubs

AWAY = "away"
COMPUTE_S = 0.05


class UnhurriedWorker(EchoWorker):
    """Never answers within the one millisecond that every client gives it once."""

    def _answer(self, taken: TakenJob, job: Job) -> Answer:
        time.sleep(COMPUTE_S)
        return super()._answer(taken, job)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    address: str
    stubs: Stubs
    gateway: Process

    def refused_at_s(self) -> list[float]:
        """When it refused a call for want of a worker, in seconds since the epoch, oldest first."""
        lines = [json.loads(line) for line in self.gateway.log.splitlines()]
        return [_timestamp_s(line) for line in lines if line.get("reason") == "NO_WORKER"]


def _timestamp_s(line: dict) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


@contextlib.contextmanager
def service() -> Iterator[Service]:
    with (
        redis_server(embedded_binary()) as redis_url,
        UnhurriedWorker(redis_url, "emb"),
        UnhurriedWorker(redis_url, "rank", Operation.RERANK),
    ):
        EchoWorker(redis_url, AWAY).start().stop()  # announced, and gone at once
        with gateway(redis_url, "--default-embedding-model", "emb") as (process, address):
            stubs = Stubs(address)
            eventually(lambda: len(stubs.models.ListModels(ListModelsRequest()).models) == 3)
            yield Service(address=address, stubs=stubs, gateway=process)
            stubs.channel.close()
