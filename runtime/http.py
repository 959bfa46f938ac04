"""The port for those who watch a process: /metrics for Prometheus, /livez and /readyz for probes.

It is served in threads of its own, so that it answers also while the process's work hangs, and can say so.
"""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from runtime.errors import SettingError

REQUEST_LIMIT_S = 10.0

log = structlog.get_logger()

Problem: TypeAlias = Callable[[], str | None]
"""Says what is wrong; None where nothing is."""


class Pulse:
    """When a loop last came round: it beats in one thread, and is asked about in another."""

    def __init__(self, *, limit_s: float) -> None:
        self._limit_s = limit_s
        self._beat_at: float | None = None

    def beat(self) -> None:
        self._beat_at = time.monotonic()

    def problem(self) -> str | None:
        """A silence of more than `limit_s` seconds; none before the first beat."""
        if self._beat_at is None:
            return None
        silent_s = time.monotonic() - self._beat_at
        return f"hung for {silent_s:.0f} s" if silent_s > self._limit_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What is told of a process: its metrics, why it should be ended, and why it should be sent no work."""

    metrics: CollectorRegistry
    hung: Problem
    unready: Problem


@contextlib.contextmanager
def watching_port(address: str | None, watched: Watched, *, reuse_port: bool = False) -> Iterator[Callable[[], None]]:
    """Answer at HOST:PORT inside, or at the first free port of HOST:FIRST-LAST, which the log names.

    Without an address there is no such port. With `reuse_port` several processes share it. The call that comes back
    closes it early. Raises SettingError where nothing can be listened on.
    """
    with contextlib.ExitStack() as port:
        if address is not None:
            server = _Server(_listen(address, reuse_port=reuse_port), _application(watched))
            threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
            port.callback(server.stop)
            log.info("http", address=server.address)
        yield port.close


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Probes and scrapes come all the time."""


class _Server(ThreadingMixIn, WSGIServer):
    """The library's server on a socket that listens already. Its own way of binding asks DNS for this host's name."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, application: WSGIApplication) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__((host, port), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = host, port
        self.setup_environ()
        self.set_app(application)
        self._open_since_s: dict[socket.socket, float] = {}

    @property
    def address(self) -> str:
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"{host}:{self.server_port}"

    def stop(self) -> None:
        """Free the port."""
        with contextlib.suppress(OSError):  # not every system can
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the loop, which looks up twice a second otherwise
        self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, peer = super().get_request()
        self._open_since_s[connection] = time.monotonic()
        return connection, peer

    def service_actions(self) -> None:
        """Twice a second at least: who says nothing, or a byte now and then, would keep a thread for ever."""
        oldest_s = time.monotonic() - REQUEST_LIMIT_S
        for connection, since_s in self._open_since_s.copy().items():
            if since_s < oldest_s:
                with contextlib.suppress(OSError):  # it ends by itself at this moment
                    connection.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._open_since_s.pop(request, None)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - as the library calls it
        """Peers that hang up or say nothing are no news."""
        log.debug("http request failed", exc_info=sys.exception())


def _listen(address: str, *, reuse_port: bool) -> socket.socket:
    host, _, ports = address.rpartition(":")
    first, _, last = ports.partition("-")
    reason: OSError | None = None
    for port in range(int(first), int(last or first) + 1):
        try:
            return _listen_at(host.strip("[]"), port, reuse_port=reuse_port)
        except OSError as error:
            reason = error
    raise SettingError(f"--http-listen {address}: cannot listen there") from reason


def _listen_at(host: str, port: int, *, reuse_port: bool) -> socket.socket:
    family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # [::] is every address, as for gRPC
    return socket.create_server((host, port), family=family, reuse_port=reuse_port, dualstack_ipv6=both)


def _application(watched: Watched) -> WSGIApplication:
    metrics: WSGIApplication = make_wsgi_app(watched.metrics)
    probes = {"/livez": watched.hung, "/readyz": watched.unready}

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path in probes:
            problem = probes[path]()
            return _say(start_response, "200 OK" if problem is None else "503 Service Unavailable", problem or "ok")
        return _say(start_response, "404 Not Found", "/metrics, /livez, /readyz")

    return answer


def _say(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
