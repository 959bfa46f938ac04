"""`qwen3-serve`: settings, logging, signals, run."""

import asyncio
import signal
import sys

from runtime.children import StopRequest
from runtime.errors import ServiceError
from runtime.logs import configure_logging
from runtime.ready import say_ready
from runtime.restarts import RestartPolicy
from standalone.config import ServeSettings
from standalone.programs import environment, gateway_program, worker_programs
from standalone.supervisor import Plan, serve


def main() -> None:
    settings = ServeSettings.from_command_line()
    configure_logging(settings.log_level, process="serve")
    plan = Plan(
        gateway=gateway_program(settings),
        workers=worker_programs(settings),
        environment=environment(settings),
        redis_url=settings.redis,
        stop_limit_s=settings.stop_limit_s,
        restart_policy=RestartPolicy(),
    )
    sys.exit(run(plan))


def run(plan: Plan) -> int:
    """Serve until a signal; the exit code, after the reasons on stderr where it is not 0."""
    failures: list[str] = []
    try:
        asyncio.run(_serve_until_signal(plan))
    except* ServiceError as group:
        failures = [str(error) for error in group.exceptions]
    for failure in failures:
        sys.stderr.write(f"qwen3-serve: {failure}\n")
    return 1 if failures else 0


async def _serve_until_signal(plan: Plan) -> None:
    stop = StopRequest()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.signal)
    await serve(plan, stop, say_ready)
    if stop.hurry.is_set():
        raise ServiceError("a second signal cut the draining short")


if __name__ == "__main__":
    main()
