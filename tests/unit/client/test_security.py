import pytest

from qwen3_client import Tls
from qwen3_client.security import authorization, is_this_machine
from tests.support.clients import CLIENTS

SECRET = "q3_id_secret"


@pytest.fixture(params=CLIENTS)
def connect(request):
    return CLIENTS[request.param]


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "localhost:1",
        "[::1]:1",
        "unix:/run/q.sock",
        "dns:///localhost:1",
        "ipv4:127.0.0.1:1,127.0.0.2:1",
    ],
)
def test_these_targets_are_this_machine(target):
    assert is_this_machine(target)


@pytest.mark.parametrize(
    "target",
    [
        "gateway:50051",
        "127.0.0.1.example.org:1",
        "localhost.example.org:1",
        "dns://127.0.0.1/gateway:1",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "10.127.0.0:1",
    ],
)
def test_these_are_not(target):
    assert not is_this_machine(target)


def test_a_token_is_not_sent_in_plain_text_beyond_this_machine(connect):
    with pytest.raises(ValueError, match="plain text") as caught:
        connect("gateway:50051", token=SECRET)
    assert SECRET not in str(caught.value)
    with (
        connect("gateway:50051", token=SECRET, allow_plaintext_token=True),
        connect("gateway:50051", token=SECRET, tls=Tls()),
    ):
        pass


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é"])
def test_a_token_that_no_header_carries_is_refused_without_showing_it(token):
    with pytest.raises(ValueError, match="the token") as caught:
        authorization(token)
    assert not token or token not in str(caught.value)


def test_a_certificate_needs_its_key():
    with pytest.raises(ValueError, match="go together"):
        Tls(cert_file="tls.crt")


def test_a_token_and_an_active_trace_go_with_every_call(server, connect):
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - only this test needs it

    keys = iter(["first", "second"])
    span = TracerProvider().get_tracer("test").start_span("caller")
    trace_id = f"{span.get_span_context().trace_id:032x}"
    with connect(server.address, token=lambda: next(keys)) as client:
        client.embed(["text"])
        from opentelemetry.trace import use_span  # noqa: PLC0415 - likewise

        with use_span(span, end_on_exit=True):
            client.embed(["text"] * 300)
    first, second = server.metadata[0], server.metadata[1]
    assert (first["authorization"], second["authorization"]) == ("Bearer first", "Bearer second")
    assert "traceparent" not in first
    assert trace_id in second["traceparent"]
