"""qwen3-serve with fake children: `fake_service.py EVENTS_FILE GATEWAY_WAYS WORKER_WAYS...`, ways joined by commas."""

import os
import sys
from pathlib import Path

from runtime.children import Program
from runtime.logs import configure_logging
from runtime.restarts import RestartPolicy
from standalone.__main__ import run
from standalone.supervisor import Plan

CHILD = str(Path(__file__).with_name("fake_child.py"))


def program(role, events, ways):
    return Program(name=role, command=(sys.executable, CHILD, role, events, *ways.split(",")))


if __name__ == "__main__":
    events, gateway_ways, *worker_ways = sys.argv[1:]
    configure_logging("info")
    plan = Plan(
        gateway=program("gateway", events, gateway_ways),
        workers=tuple(program(f"worker{n}", events, ways) for n, ways in enumerate(worker_ways)),
        environment=os.environ,
        redis_url="",
        stop_limit_s=5,
        restart_policy=RestartPolicy(first_delay_s=0.05),
    )
    sys.exit(run(plan))
