"""`qwen3-gateway`: one process, or several under a parent."""

import asyncio
import signal
import sys

import structlog

from gateway import process
from gateway.config import GatewaySettings
from gateway.processes import Requests, serve_in_processes
from runtime.errors import ServiceError, SettingError
from runtime.logs import configure_logging
from runtime.ready import say_ready


def main() -> None:
    settings = GatewaySettings.from_command_line()
    if settings.processes == 1:
        configure_logging(settings.log_level, process="gateway")
        sys.exit(process.run(settings))
    configure_logging(settings.log_level, process="gateway-parent")
    sys.exit(_supervise(settings))


def _supervise(settings: GatewaySettings) -> int:
    """The exit code, after the reasons in the log where it is not 0."""
    failures: list[str] = []
    try:
        asyncio.run(_serve_in_processes(settings))
    except* (ServiceError, SettingError) as group:
        failures = list(_messages(group))
    for failure in failures:
        structlog.get_logger().error("cannot serve", error=failure)
    return 1 if failures else 0


async def _serve_in_processes(settings: GatewaySettings) -> None:
    requests = Requests()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, requests.stop.signal)
    loop.add_signal_handler(signal.SIGHUP, requests.restart.set)
    await serve_in_processes(settings, sys.argv[1:], requests, say_ready)
    if requests.stop.hurry.is_set():
        raise ServiceError("a second signal cut the draining short")


def _messages(group: BaseExceptionGroup[Exception]) -> list[str]:
    """Of all errors in it, once each: a death is known to whoever waited for the process and to whoever watched it."""
    nested = [_messages(error) if isinstance(error, BaseExceptionGroup) else [str(error)] for error in group.exceptions]
    return list(dict.fromkeys(message for messages in nested for message in messages))


if __name__ == "__main__":
    main()
