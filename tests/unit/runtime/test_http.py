"""The port for probes and scrapes, over real sockets."""

import socket

import pytest
from prometheus_client import Counter
from pydantic import TypeAdapter, ValidationError

from runtime.errors import SettingError
from runtime.http import Pulse, Watched, watching_port
from runtime.metrics import new_registry, shown_registry
from runtime.settings import ListenRange
from tests.support.echo import eventually
from tests.support.http import get
from tests.support.redis_servers import free_ports, free_row


def watched(*, hung=None, unready=None) -> Watched:
    registry = new_registry()
    Counter("qwen3_things", "Things", registry=registry).inc(3)
    return Watched(metrics=shown_registry(registry), hung=lambda: hung, unready=lambda: unready)


@pytest.fixture
def http_port() -> int:
    return free_ports(1)[0]


def test_what_is_well_is_ok_and_metrics_are_shown(http_port):
    address = f"127.0.0.1:{http_port}"
    with watching_port(address, watched()):
        assert get(address, "/livez") == (200, "ok\n")
        assert get(address, "/readyz") == (200, "ok\n")
        status, metrics = get(address, "/metrics")
    assert status == 200
    assert "qwen3_things_total 3.0" in metrics
    assert 'qwen3_build_info{python="' in metrics
    assert "_created" not in metrics


def test_a_problem_is_503_with_its_reason_at_the_probe_that_it_concerns(http_port):
    address = f"127.0.0.1:{http_port}"
    with watching_port(address, watched(unready="redis is away")):
        assert get(address, "/livez") == (200, "ok\n")
        assert get(address, "/readyz") == (503, "redis is away\n")
    with watching_port(address, watched(hung="hung for 20 s")):
        assert get(address, "/livez") == (503, "hung for 20 s\n")
        assert get(address, "/readyz") == (200, "ok\n")


def test_other_paths_are_not_found(http_port):
    address = f"127.0.0.1:{http_port}"
    with watching_port(address, watched()):
        assert [get(address, path)[0] for path in ("/", "/metrics/", "/livez/x")] == [404, 404, 404]


def test_a_silent_peer_keeps_nobody_waiting(http_port):
    address = f"127.0.0.1:{http_port}"
    with watching_port(address, watched()), socket.create_connection(("127.0.0.1", http_port)):
        assert get(address, "/livez") == (200, "ok\n")


@pytest.mark.parametrize("words", [b"", b"G"])
def test_a_peer_that_never_ends_its_request_is_cut_off(http_port, monkeypatch, words):
    monkeypatch.setattr("runtime.http.REQUEST_LIMIT_S", 0.1)
    with watching_port(f"127.0.0.1:{http_port}", watched()), connected(http_port) as peer:
        eventually(lambda: is_cut_off(peer, words))


def connected(port: int) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port))
    peer.settimeout(0)
    return peer


def is_cut_off(peer: socket.socket, words: bytes) -> bool:
    """After saying some more."""
    try:
        peer.send(words)
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_a_range_gives_each_process_a_port_until_there_is_none_left():
    lowest_port = free_row(2)
    wanted = f"127.0.0.1:{lowest_port}-{lowest_port + 1}"
    with watching_port(wanted, watched()), watching_port(wanted, watched(unready="second")):
        assert get(f"127.0.0.1:{lowest_port}", "/readyz")[0] == 200
        assert get(f"127.0.0.1:{lowest_port + 1}", "/readyz") == (503, "second\n")
        with pytest.raises(SettingError, match=f"--http-listen {wanted}"), watching_port(wanted, watched()):
            pass


@pytest.mark.parametrize("address", ["0.0.0.0:9100", "[::]:9100-9199", "host:0", "h:65535-65535"])
def test_a_port_or_a_range_of_ports_may_be_given(address):
    assert TypeAdapter(ListenRange).validate_python(address) == address


@pytest.mark.parametrize(
    "address", ["9100", ":9100", "h:", "h:x", "h:9199-9100", "h:1-65536", "h:65536", "h:1-", "h:1-2-3"]
)
def test_what_is_no_range_of_ports_is_refused(address):
    with pytest.raises(ValidationError, match="HOST:PORT or HOST:FIRST-LAST is expected"):
        TypeAdapter(ListenRange).validate_python(address)


def test_a_port_in_use_is_refused_unless_both_share_it(http_port):
    address = f"127.0.0.1:{http_port}"
    with watching_port(address, watched()), pytest.raises(SettingError), watching_port(address, watched()):
        pass
    with watching_port(address, watched(), reuse_port=True), watching_port(address, watched(), reuse_port=True):
        assert get(address, "/livez")[0] == 200


def test_the_port_is_free_at_the_end_and_where_it_is_closed_early(http_port):
    address = f"127.0.0.1:{http_port}"
    with watching_port(address, watched()) as close:
        get(address, "/livez")
        close()
        with watching_port(address, watched()):
            assert get(address, "/livez")[0] == 200
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", http_port)):
        pass


def test_without_an_address_there_is_no_port():
    with watching_port(None, watched()) as close:
        close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("host", "reached_at"), [("[::1]", "[::1]"), ("[::]", "127.0.0.1"), ("[::]", "[::1]")])
def test_addresses_of_ipv6_are_listened_on(host, reached_at, http_port):
    with watching_port(f"{host}:{http_port}", watched()):
        assert get(f"{reached_at}:{http_port}", "/livez") == (200, "ok\n")


def test_a_loop_hangs_once_it_has_been_silent_for_longer_than_its_limit():
    pulse = Pulse(limit_s=0.0)
    assert pulse.problem() is None, "it has not begun"
    pulse.beat()
    eventually(lambda: pulse.problem() == "hung for 0 s")
    patient = Pulse(limit_s=1000.0)
    patient.beat()
    assert patient.problem() is None
