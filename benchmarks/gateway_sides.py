"""What `benchmarks.gateway` compares: grpc.aio alone, and gateways with everything off and on."""

import contextlib
import http.server
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.queue_servers import child, redis_server
from gateway.identity.api_keys import ApiKey
from worker.make_checkpoint import make_checkpoint
from worker.model.task import ModelTask

QUEUE = "echo@1"
NATIVE_DIMENSIONS = 1024
START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A server to load, which is process `pid` and its children."""

    name: str
    address: str
    pid: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """All of them, and the Redis behind the gateways, whose queue is QUEUE."""

    all: Sequence[Side]
    redis_url: str

    def named(self, name: str) -> Side:
        return next(side for side in self.all if side.name == name)


@contextlib.contextmanager
def sides(folder: Path, redis_binary: Path) -> Iterator[Sides]:
    """Each side in processes of its own, before one queue with a worker that answers at once."""
    make_checkpoint(folder / "model", task=ModelTask.EMBED, seed=0)
    with ExitStack() as stack:
        url = stack.enter_context(redis_server(redis_binary))
        tokenizer = folder / "model" / "tokenizer.json"
        stack.enter_context(child("benchmarks.queue_echo", url, QUEUE, "--tokenizer", str(tokenizer)))
        bare, bare_address = stack.enter_context(child("benchmarks.gateway_bare"))
        everything = _everything(folder, stack.enter_context(_collector()))
        found = [Side(name="bare", address=bare_address, pid=bare)]
        for name, options, headers in (
            ("off", ["--log-level", "warning"], {}),
            ("on", *everything),
            ("off, 2 processes", ["--log-level", "warning", "--processes", "2"], {}),
        ):
            process, address = stack.enter_context(_gateway(url, options))
            found.append(Side(name=name, address=address, pid=process, headers=headers))
            await_model(address)
        yield Sides(all=found, redis_url=url)


def _everything(folder: Path, collector: str) -> tuple[list[str], Mapping[str, str]]:
    """Options for access control, metrics, a log line for each call and 1 % of traces; and headers with a key."""
    key, access = ApiKey.new(), folder / "access.toml"
    access.write_text(
        f'[tenants.benchmark]\nmodels = ["*"]\n[tenants.benchmark.keys.{key.id}]\nsha256 = "{key.sha256}"\n'
    )
    headers = {"authorization": f"Bearer {key.reveal()}"}
    options = ["--access", str(access), "--http-listen", "127.0.0.1:0", "--log-level", "info"]
    return [*options, "--otlp-endpoint", collector, "--trace-share", "0.01"], headers


@contextlib.contextmanager
def _gateway(redis_url: str, options: Sequence[str]) -> Iterator[tuple[int, str]]:
    limits = ["--max-wait-s", "600", "--listen", "127.0.0.1:0"]
    with child("gateway", "--redis", redis_url, *limits, *options, is_quiet=True) as found:
        yield found


def await_model(address: str) -> None:
    """Until the gateway has seen the worker."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=f"model:{QUEUE.partition('@')[0]}")
        for response in stub.Watch(request, timeout=START_LIMIT_S):
            if response.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise RuntimeError(f"{address} does not serve")


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    """Takes traces and throws them away."""

    class Sink(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody is told."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
