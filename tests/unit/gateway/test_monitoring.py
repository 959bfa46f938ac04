"""The event loop's own beat, over a real port."""

import asyncio

import pytest

from gateway.config import GatewaySettings
from gateway.observing.monitoring import monitored
from tests.support.echo import eventually
from tests.support.http import get
from tests.support.redis_servers import free_ports


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("gateway.observing.monitoring.HUNG_AFTER_S", 0.2)
    monkeypatch.setattr("gateway.observing.monitoring.BEAT_S", 0.01)


async def test_a_gateway_whose_event_loop_hangs_is_not_alive_until_it_turns_again(impatient, address):
    settings = GatewaySettings(redis="redis://nobody", http_listen=address)
    async with monitored(settings, None, asyncio.Event()):
        eventually(lambda: get(address, "/livez")[0] == 503)  # it blocks the loop, since it sleeps in its thread
        assert "hung for" in get(address, "/livez")[1]
        await asyncio.to_thread(eventually, lambda: get(address, "/livez")[0] == 200)


async def test_without_an_address_nothing_is_counted_polled_or_listened_on():
    settings = GatewaySettings(redis="redis://nobody")
    async with monitored(settings, None, asyncio.Event()) as monitoring:
        assert monitoring.observers == []
        await monitoring.run()
        monitoring.drains()


async def test_the_probe_says_what_a_gateway_waits_for(address):
    stopping = asyncio.Event()
    settings = GatewaySettings(redis="redis://nobody", http_listen=address)
    async with monitored(settings, None, stopping):
        assert get(address, "/readyz") == (503, "starting\n")
        stopping.set()
        assert get(address, "/readyz") == (503, "stopping\n")
