"""Workers of one host tell of themselves at ports of one range."""

import signal
import socket

import pytest

from tests.support.echo import eventually
from tests.support.http import Scrape, get, http_address
from tests.support.processes import gateway, running
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import Stubs


@pytest.fixture
def server():
    with redis_server(embedded_binary()) as url:
        yield url


@pytest.fixture
def port_range():
    """Some of which may be taken meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = min(first.getsockname()[1], 65_000)
    return f"127.0.0.1:{port}-{port + 50}"


def test_two_workers_of_one_host_share_a_range_and_are_told_apart(server, embedding_checkpoint, port_range):
    options = (str(embedding_checkpoint), "--redis", server, "--http-listen", port_range, "--name", "m")
    with running("worker", *options) as one, running("worker", *options) as other:
        addresses = [http_address(process) for process in (one, other)]
        assert len(set(addresses)) == 2
        for process, address in zip((one, other), addresses, strict=True):
            process.ready()
            assert get(address, "/livez") == get(address, "/readyz") == (200, "ok\n")
        with gateway(server) as (_, gateway_address):
            stubs = Stubs(gateway_address)
            for _ in range(4):
                stubs.embed(["text"])
            stubs.channel.close()
        # A worker counts after it has answered.
        eventually(lambda: sum(Scrape(address).value("qwen3_jobs_total", model="m") for address in addresses) == 4)
        scrapes = [Scrape(address) for address in addresses]
        assert sum(scrape.value("qwen3_job_queue_seconds_count", model="m") for scrape in scrapes) == 4
        assert [scrape.value("qwen3_batches_held", model="m") for scrape in scrapes] == [0, 0]
        assert [scrape.value("qwen3_batch_age_seconds", model="m") for scrape in scrapes] == [0, 0]


def test_a_worker_is_alive_while_it_loads_and_ready_when_it_has(server, embedding_checkpoint, port_range):
    options = (str(embedding_checkpoint), "--redis", server, "--http-listen", port_range)
    with running("worker", *options) as process:
        address = http_address(process)
        seen = set()
        eventually(lambda: seen.add(get(address, "/readyz")) or (200, "ok\n") in seen)
        assert seen <= {(503, "loading\n"), (200, "ok\n")}
        assert get(address, "/livez") == (200, "ok\n")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
