"""A gateway or a worker in a few lines, run as a process: `fake_child.py ROLE EVENTS_FILE [WAY...]`.

It notes in EVENTS_FILE what happens to it, and misbehaves in the WAYs it is told.
"""

import os
import signal
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path

MODEL = "Test/Model"


def main():
    role, events, *ways = sys.argv[1:]
    note = Notes(Path(events), role)
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    note("started")
    sys.stderr.write(f"{role} says hello\n")
    if "leaves-a-grandchild" in ways:
        note(f"grandchild {subprocess.Popen(['sleep', '600']).pid}")
    if "dies-before-ready" in ways or ("dies-before-second-ready" in ways and note.times("started") > 1):
        sys.exit("out of luck")
    words = f"127.0.0.1:{serve_health()}" if role == "gateway" else f"{MODEL} embedding"
    sys.stdout.write(f"ready {words}\n")
    sys.stdout.flush()
    note("ready")
    if "dies-after-ready" in ways or ("dies-once" in ways and note.times("started") == 1):
        sys.exit("bad luck")
    while not terminated.wait(0.05):
        pass
    note("stopping")
    if "never-stops" in ways:
        threading.Event().wait()
    note("stopped")


class Notes:
    def __init__(self, file, role):
        self.file, self.role = file, role

    def __call__(self, event):
        with self.file.open("a") as file:
            file.write(f"{self.role} {event} {os.getpid()} {os.environ.get('QWEN3_REDIS')}\n")

    def times(self, event):
        return self.file.read_text().count(f"{self.role} {event} ")


def serve_health():
    import grpc  # noqa: PLC0415 - the workers start faster without
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # noqa: PLC0415

    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    servicer.set(f"model:{MODEL}", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    globals()["server"] = server  # kept: grpc stops a server that nobody holds
    return port


if __name__ == "__main__":
    main()
