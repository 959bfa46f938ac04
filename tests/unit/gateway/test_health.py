"""SERVING only where a request could succeed."""

import pytest

from gateway.health import SERVICES, health_of
from jobqueue.announcements import Liveness
from jobqueue.messages import Operation

EMBEDDING, RERANK, TOKENIZER, MODEL = SERVICES


def test_the_services_are_the_contract_s():
    names = ("EmbeddingService", "RerankService", "TokenizerService", "ModelService")
    assert [service.rpartition(".")[2] for service in SERVICES] == list(names)
    assert {service.rpartition(".")[0] for service in SERVICES} == {"qwen3.inference.v1"}


def test_with_live_models_all_serve(catalog):
    assert set(health_of(catalog, draining=False).values()) == {True}
    assert set(health_of(catalog, draining=False)) == {"", *SERVICES, "model:emb", "model:rer"}


def test_while_draining_nothing_serves(catalog):
    assert set(health_of(catalog, draining=True).values()) == {False}


def test_without_redis_only_what_needs_none_serves(served, catalog_of):
    away = catalog_of(served("emb", Operation.EMBED), served("rer", Operation.RERANK), reachable=False)
    found = health_of(away, draining=False)
    assert {name for name, serving in found.items() if serving} == {TOKENIZER, MODEL}


def test_without_models_the_gateway_serves_but_no_work(catalog_of):
    assert health_of(catalog_of(), draining=False) == {
        "": True,
        EMBEDDING: False,
        RERANK: False,
        TOKENIZER: False,
        MODEL: True,
    }


@pytest.mark.parametrize(
    ("liveness", "wakeable", "serving"),
    [
        (Liveness.LIVE, False, True),
        (Liveness.LOADING, False, False),
        (Liveness.ABSENT, True, True),
        (Liveness.ABSENT, False, False),
    ],
)
def test_a_model_and_its_service_serve_with_a_live_worker_or_one_to_wake(
    served, catalog_of, liveness, wakeable, serving
):
    found = health_of(catalog_of(served("m", Operation.RERANK, liveness, wakeable=wakeable)), draining=False)
    assert (found["model:m"], found[RERANK], found[EMBEDDING]) == (serving, serving, False)


def test_one_model_that_serves_is_enough_for_the_service(served, catalog_of):
    models = catalog_of(served("up", Operation.EMBED), served("down", Operation.EMBED, Liveness.ABSENT))
    found = health_of(models, draining=False)
    assert (found["model:up"], found["model:down"], found[EMBEDDING]) == (True, False, True)
