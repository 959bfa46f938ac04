import asyncio
import contextlib
import os
import signal
import sys

import psutil
import pytest

from runtime.children import Child, Program, StopRequest
from runtime.errors import ServiceError


def python(code):
    return Program(name="child", command=(sys.executable, "-c", code))


@pytest.fixture
async def start():
    children = []

    async def start(code, **environment):
        children.append(await Child.start(python(code), os.environ | environment))
        return children[-1]

    yield start
    hurry = asyncio.Event()
    hurry.set()
    for child in children:
        await child.stop(hurry=hurry, limit_s=1)


async def test_the_words_of_the_ready_line_are_told(start):
    child = await start(
        "import os, time; print('ready', os.environ['WORD'], 'b', flush=True); time.sleep(600)", WORD="a"
    )
    assert await child.until_ready() == "a b"
    assert not child.has_exited


async def test_a_child_that_ends_before_it_is_ready_is_an_error_with_its_last_20_lines(start):
    child = await start("import sys; [print('line', n, file=sys.stderr) for n in range(30)]; sys.exit(3)")
    with pytest.raises(ServiceError) as caught:
        await child.until_ready()
    message = str(caught.value)
    assert message.startswith("child ended before it was ready with exit status 3; its last lines:\nline 10\n")
    assert message.endswith("line 29")


async def test_what_a_child_writes_reaches_stderr_unchanged(start, capfdbinary):
    child = await start(r"import os; os.write(2, b'50 %\r\xff'); os.write(1, b'plain\nready x\nno newline')")
    assert await child.exited() == 0
    out, err = capfdbinary.readouterr()
    assert b"50 %\r\xff" in err
    assert b"plain\n" in err
    assert b"no newline" in err
    assert b"ready" not in out + err


async def test_very_long_lines_do_not_stop_a_child(start):
    child = await start("import os; print('x' * 3_000_000); os.write(2, b'y' * 3_000_000); print('ready now')")
    assert await child.until_ready() == "now"
    assert await child.exited() == 0


async def test_a_child_drains_on_stop(start):
    child = await start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True); print('ready x', flush=True)\n"
        "time.sleep(600)"
    )
    await child.until_ready()
    await child.stop(hurry=asyncio.Event(), limit_s=60)
    assert await child.exited() == 7


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready x', flush=True); time.sleep(600)"
)


async def test_a_child_that_ignores_sigterm_is_killed_after_the_limit(start):
    child = await start(STUBBORN)
    await child.until_ready()
    await child.stop(hurry=asyncio.Event(), limit_s=0.2)
    assert await child.exited() == -signal.SIGKILL


async def test_a_hurried_stop_kills_at_once(start):
    child = await start(STUBBORN)
    await child.until_ready()
    stop = StopRequest()
    stopping = asyncio.create_task(child.stop(hurry=stop.hurry, limit_s=3600))
    stop.signal()
    await asyncio.sleep(0.1)
    assert not stopping.done()
    stop.signal()
    await stopping
    assert await child.exited() == -signal.SIGKILL


async def until_gone(pid):
    """The kernel takes a moment, and a container may have nobody to reap orphans."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for _ in range(1000):
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{pid} still runs")


async def test_what_a_dead_child_started_dies_with_it(start):
    child = await start("import subprocess; print('ready', subprocess.Popen(['sleep', '600']).pid, flush=True)")
    grandchild = int(await child.until_ready())
    assert await child.exited() == 0
    await until_gone(grandchild)


async def test_a_child_has_a_session_of_its_own(start):
    child = await start("import time; print('ready x', flush=True); time.sleep(600)")
    await child.until_ready()
    assert os.getsid(child.pid) == child.pid
