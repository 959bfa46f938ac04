"""`qwen3-gateway`: wiring only."""

import asyncio
import sys

import structlog
import uvloop

from gateway.config import GatewaySettings
from gateway.server import serve
from jobqueue.errors import UnsuitableServerError
from runtime.errors import SettingError
from runtime.logs import configure_logging
from runtime.stopping import stop_on_signals


def main() -> None:
    settings = GatewaySettings.from_command_line()
    configure_logging(settings.log_level, process="gateway")
    try:
        uvloop.run(_serve(settings))
    except (UnsuitableServerError, SettingError) as error:
        structlog.get_logger().error("cannot serve", error=str(error))
        sys.exit(1)
    except ExceptionGroup:
        structlog.get_logger().exception("a task died")
        sys.exit(1)


async def _serve(settings: GatewaySettings) -> None:
    stopping = asyncio.Event()
    stop_on_signals(stopping.set)
    await serve(settings, stopping)


if __name__ == "__main__":
    main()
