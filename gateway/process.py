"""`python -m gateway.process FLAGS...`: one of several gateway processes, which its parent starts.

It reads the settings for itself, so that a restart takes changed ones into use, but for those that the parent has
decided for all, which are its last flags.
"""

import asyncio
import os
import signal
import sys

import structlog
import uvloop

from gateway.config import GatewaySettings
from gateway.life import serve
from gateway.observing.grpc_logs import hide_what_clients_sent
from jobqueue.errors import UnsuitableServerError
from runtime.errors import SettingError
from runtime.logs import configure_logging
from runtime.stopping import stop_on_signals
from runtime.tracing import tracing

SIGHUP_IGNORED = "SIGHUP is ignored: it restarts processes where it is sent to the parent of several"

log = structlog.get_logger()


def main() -> None:
    settings = GatewaySettings.from_command_line()
    configure_logging(settings.log_level, process="gateway", pid=str(os.getpid()))
    sys.exit(run(settings))


def run(settings: GatewaySettings) -> int:
    """Serve until a signal; the exit code, after the reason in the log where it is not 0."""
    hide_what_clients_sent()
    try:
        uvloop.run(_serve(settings))
    except (UnsuitableServerError, SettingError) as error:
        log.error("cannot serve", error=str(error))  # noqa: TRY400 - it says what the operator has to do
        return 1
    except ExceptionGroup:
        log.exception("a task died")
        return 1
    return 0


async def _serve(settings: GatewaySettings) -> None:
    stopping = asyncio.Event()
    stop_on_signals(stopping.set)
    # Its default is death, and whoever sends it wants the opposite.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, log.warning, SIGHUP_IGNORED)
    with tracing(settings.otlp_endpoint, service="qwen3-gateway") as tracer:
        await serve(settings, stopping, tracer)


if __name__ == "__main__":
    main()
