"""`qwen3-worker`: wiring only."""

import os
import sys
import threading

import structlog

from jobqueue.errors import QueueError
from runtime.errors import SettingError
from runtime.logs import configure_logging
from runtime.stopping import stop_on_signals
from worker.config import WorkerSettings
from worker.model.errors import CheckpointError


def main() -> None:
    settings = WorkerSettings.from_command_line()
    configure_logging(settings.log_level, process="worker")
    stopping, working = threading.Event(), threading.Event()
    stop_on_signals(lambda: _stop(stopping, working))
    # On shared cores OpenMP's spinning costs three quarters of the speed; torch reads this when it loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from worker.process import work  # noqa: PLC0415 - loads torch: after the line above, and not for --help

    try:
        work(settings, stopping, working)
    except (QueueError, CheckpointError, SettingError) as error:
        structlog.get_logger().error("cannot serve", error=str(error))
        sys.exit(1)


def _stop(stopping: threading.Event, working: threading.Event) -> None:
    """Drain; or leave at once while there is nothing to drain, since loading may take minutes."""
    stopping.set()
    if not working.is_set():
        sys.exit(0)


if __name__ == "__main__":
    main()
