"""A gateway or a worker in a few lines, run as a process: `fake_child.py ROLE EVENTS_FILE [WAY...]`.

It notes in EVENTS_FILE what happens to it, and misbehaves in the WAYs it is told.
"""

import os
import signal
import subprocess
import sys
import threading
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
    if "never-ready" in ways:
        terminated.wait()
    words = "127.0.0.1:50051" if role == "gateway" else f"{MODEL} embedding"
    note("ready")
    sys.stdout.write(f"ready {words}\n")
    sys.stdout.flush()
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


if __name__ == "__main__":
    main()
