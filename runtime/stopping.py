"""Stopping in order: the first SIGTERM or SIGINT asks, the second one leaves at once."""

import os
import signal
from collections.abc import Callable
from types import FrameType


def stop_on_signals(stop: Callable[[], object]) -> None:
    """Call `stop` at the first signal, from the main thread's next bytecode; end the process at the second."""
    asked = False

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
