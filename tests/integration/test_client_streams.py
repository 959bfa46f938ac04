"""Bulk calls of both clients through real gateways: in order, once each, flat, whatever becomes of the gateway."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import numpy as np
import pytest

from qwen3_client import AsyncClient, Client, DeadlineExceededError, UnavailableError, async_streams, streams
from qwen3_client.batches import MAX_CHUNK_TEXTS
from qwen3_client.bulk import MAX_CHUNKS
from tests.support.clients import CLIENTS
from tests.support.echo import eventually
from tests.support.processes import Process, gateway
from tests.support.redis_servers import free_ports

NUM_TEXTS = 5000
TEXTS = [f"text number {number}" for number in range(NUM_TEXTS)]
MAX_TAKEN = (MAX_CHUNKS + 1) * MAX_CHUNK_TEXTS + 1  # texts that are taken and whose vectors are not handed out


@pytest.fixture(scope="module")
def address(redis_url, shared_worker):
    with gateway(redis_url, "--await-models", "emb") as (_, address):
        yield address


@pytest.fixture(scope="module")
def vectors(address):
    """What unary calls bring."""
    with Client(address) as client:
        parts = [client.embed(TEXTS[first : first + 250]).vectors for first in range(0, NUM_TEXTS, 250)]
    return np.concatenate(parts)


@pytest.fixture(params=CLIENTS)
def connect(request):
    return CLIENTS[request.param]


class Gateways:
    """A context manager: one gateway after the other at the same address."""

    def __init__(self, redis_url: str, *options: str) -> None:
        [port] = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self._command = ["gateway", "--redis", redis_url, "--listen", self.address, "--await-models", "emb", *options]

    def __enter__(self):
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    def restart(self, number: int) -> None:
        """With this signal."""
        self.process.signal(number)
        self.process.wait()
        self.process.kill()
        self._start()

    def _start(self) -> None:
        self.process = Process(*self._command)
        self.process.ready()


def num_computed(worker) -> int:
    return sum(len(job.tails) for _, job in worker.jobs)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_gateway_that_is_restarted_is_not_noticed(redis_url, vectors, worker, connect, number):
    taken = []

    def texts():
        for text in TEXTS:
            taken.append(text)
            yield text

    found, num_found = [], 0
    with Gateways(redis_url) as gateways, connect(gateways.address, timeout_s=120) as client:
        for place, result in enumerate(client.embed_stream(texts())):
            found.append(result.vectors)
            num_found += len(result.vectors)
            assert len(taken) - num_found <= MAX_TAKEN
            if place == 20:
                gateways.restart(number)
    assert np.array_equal(np.concatenate(found), vectors)
    assert num_computed(worker) <= NUM_TEXTS + MAX_TAKEN  # nothing that was answered is asked again


def test_streams_that_become_too_old_follow_each_other(redis_url, vectors, worker, connect):
    worker.hold()
    with Gateways(redis_url, "--max-connection-age-s", "0.3") as gateways, connect(gateways.address) as client:
        results = client.embed_stream(TEXTS[:1000])
        worker.release()
        found = [result.vectors for result in results]
    assert np.array_equal(np.concatenate(found), vectors[:1000])


def test_a_gateway_that_stays_away_ends_the_call_within_its_timeout(redis_url, worker, connect):
    with Gateways(redis_url) as gateways, connect(gateways.address, timeout_s=3) as client:
        results = client.embed_stream(TEXTS)
        next(results)
        gateways.process.kill()
        with pytest.raises((UnavailableError, DeadlineExceededError)):
            list(results)


def test_a_slow_caller_and_a_slow_source_use_up_no_timeout(address, worker, connect, monkeypatch):
    def texts():
        for text in TEXTS[:200]:
            clock.now += 100
            yield text

    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=time.sleep)
    for module in (streams, async_streams):
        monkeypatch.setattr(module, "time", clock)
    with connect(address, timeout_s=60) as client:
        for _ in client.embed_stream(texts()):
            clock.now += 100


@pytest.mark.parametrize("leave", ["close", "exception", "interrupt"])
def test_a_stream_that_is_left_is_cancelled_and_its_work_leaves_the_queue(address, worker, connect, leave):
    def texts():
        yield from TEXTS[:2000]
        if leave == "interrupt":
            raise KeyboardInterrupt
        raise RuntimeError("the source broke")

    with connect(address) as client:
        results = client.embed_stream(texts() if leave != "close" else iter(TEXTS))
        next(results)
        if leave == "close":
            worker.hold()
            results.close()
        else:
            with pytest.raises(KeyboardInterrupt if leave == "interrupt" else RuntimeError):
                list(results)
        worker.release()
        eventually(lambda: worker.num_queued() == 0)
        assert list(results) == []


async def test_an_async_loop_that_is_left_cancels_its_stream(address, worker):
    async with AsyncClient(address) as client:
        async with contextlib.aclosing(client.embed_stream(TEXTS)) as results:
            async for _ in results:
                worker.hold()
                break
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        worker.release()
        await asyncio.to_thread(eventually, lambda: worker.num_queued() == 0)
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)


async def test_an_async_task_that_is_cancelled_cancels_its_call(address, worker):
    worker.hold()
    async with AsyncClient(address) as client:
        for texts in (TEXTS[:1], TEXTS):
            call = asyncio.create_task(client.embed(texts))
            await asyncio.to_thread(eventually, worker.num_queued)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        worker.release()
        await asyncio.to_thread(eventually, lambda: worker.num_queued() == 0)


async def test_texts_may_come_from_an_async_source(address, vectors, worker):
    async def texts():
        for text in TEXTS[:500]:
            await asyncio.sleep(0)
            yield text

    async with AsyncClient(address) as client:
        found = [result.vectors async for result in client.embed_stream(texts())]
    assert np.array_equal(np.concatenate(found), vectors[:500])


def test_a_program_that_is_interrupted_ends_at_once_and_leaves_no_work(address, worker):
    worker.hold()
    program = textwrap.dedent(f"""
        import signal
        from qwen3_client import Client
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
        with Client({address!r}) as client:
            print("asking", flush=True)
            client.embed(["text"] * 1000)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        eventually(worker.num_queued)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in stderr
    worker.release()
    eventually(lambda: worker.num_queued() == 0)
