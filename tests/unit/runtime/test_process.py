"""What a process shows and how it stops, seen from outside."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

WAIT_S = 20


@contextlib.contextmanager
def script(source: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(source: str) -> tuple[str, list[dict]]:
    """What it says on stdout, and its log."""
    with script(source) as process:
        out, log = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, log
    return out, [json.loads(line) for line in log.splitlines()]


def test_logs_are_json_on_stderr_and_name_their_process():
    out, [line] = run("""
import structlog
from runtime.logs import configure_logging
configure_logging("info", process="gateway")
structlog.get_logger().debug("hidden")
structlog.get_logger().info("call", request_id="r", code="OK")
""")
    assert out == ""
    assert (line["event"], line["process"], line["level"]) == ("call", "gateway", "info")
    assert (line["request_id"], line["code"]) == ("r", "OK")
    assert line["timestamp"].endswith("Z")


def test_other_libraries_warnings_and_tracebacks_are_json_too():
    _, [warning, error] = run("""
import logging, structlog
from runtime.logs import configure_logging
configure_logging("info", process="worker")
logging.getLogger("a.library").warning("odd %s", "thing")
logging.getLogger("a.library").info("hidden")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger().exception("bug")
""")
    assert (warning["event"], warning["level"]) == ("odd thing", "warning")
    assert "ZeroDivisionError" in error["exception"]


def test_ready_is_one_line_on_stdout():
    out, log = run("from runtime.ready import say_ready; say_ready('127.0.0.1:7')")
    assert (out, log) == ("ready 127.0.0.1:7\n", [])


STOPS_IN_ORDER = """
import threading
from runtime.ready import say_ready
from runtime.stopping import stop_on_signals
stopping, finished = threading.Event(), threading.Event()
stop_on_signals(stopping.set)
say_ready("")
while not stopping.wait(0.02):
    pass
print("draining", flush=True)
while not finished.wait({drain}):
    break
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks(number):
    with script(STOPS_IN_ORDER.format(drain="0.01")) as process:
        process.stdout.readline()
        process.send_signal(number)
        assert process.stdout.readline() == "draining\n"
        assert process.wait(WAIT_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_leaves_at_once(number):
    with script(STOPS_IN_ORDER.format(drain="600")) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "draining\n"
        process.send_signal(number)
        assert process.wait(WAIT_S) == 128 + number
