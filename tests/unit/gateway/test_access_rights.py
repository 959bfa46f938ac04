"""What a request may ask for depends on who asks."""

from dataclasses import replace

import grpc
import pytest

from gateway.errors import CallError
from gateway.identity.callers import ANYBODY, Caller
from gateway.validation import validate_embed, validate_get_model, validate_rerank, visible_to
from jobqueue.lanes import Lane
from jobqueue.messages import Operation
from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, rerank_pb2


def only(*models: str, lanes=frozenset(Lane)) -> Caller:
    return Caller(tenant="t", models=frozenset(models), lanes=frozenset(lanes))


@pytest.fixture
def two_models(served, catalog_of):
    return catalog_of(served("emb", Operation.EMBED), served("other", Operation.EMBED), served("rer", Operation.RERANK))


@pytest.fixture
def embed(two_models, limits):
    def validate(caller, usual_lane=Lane.INTERACTIVE, under=limits, **config):
        request = embedding_pb2.EmbedRequest(config=embedding_pb2.EmbedConfig(**config), inputs=["text"])
        return validate_embed(request, two_models, under, caller=caller, usual_lane=usual_lane)

    return validate


def refusal(call, *arguments, **fields) -> CallError:
    with pytest.raises(CallError) as caught:
        call(*arguments, **fields)
    return caught.value


def test_a_caller_without_limits_sees_the_catalog_itself(two_models):
    assert visible_to(ANYBODY, two_models) is two_models
    assert visible_to(only("emb", "gone"), two_models).models.keys() == {"emb"}


def test_the_default_model_is_the_only_one_that_the_caller_may_use(embed):
    assert embed(only("emb", "rer")).model.id == "emb"
    assert embed(only("other")).model.id == "other"
    assert refusal(embed, only("emb", "other")).reason == "INVALID_FIELD"


def test_the_gateways_own_default_model_must_be_allowed_too(embed, limits):
    under = replace(limits, default_embedding_model="other")
    assert embed(only("emb", "other"), under=under).model.id == "other"
    error = refusal(embed, only("emb"), under=under)
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "MODEL_NOT_ALLOWED")
    assert error.message == "the default model is not allowed to this caller"


def test_errors_name_only_models_that_the_caller_may_use(embed, two_models, limits):
    assert refusal(embed, only("emb", "gone"), model="gone").metadata == {"served": "emb"}
    request = rerank_pb2.RerankRequest(model="emb", query="query", documents=["text"])
    error = refusal(validate_rerank, request, two_models, limits, caller=only("emb"))
    assert (error.reason, error.metadata) == ("WRONG_TASK", {"served": ""})


def test_a_forbidden_model_is_refused_alike_whether_it_is_served_or_not(two_models):
    for name in ("other", "gone"):
        error = refusal(validate_get_model, model_pb2.GetModelRequest(id=name), two_models, caller=only("emb"))
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "MODEL_NOT_ALLOWED")


@pytest.mark.parametrize("usual", Lane)
@pytest.mark.parametrize("lane", Lane)
def test_an_unset_priority_is_the_usual_one_or_the_only_one_allowed(embed, usual, lane):
    assert embed(ANYBODY, usual_lane=usual, model="emb").lane is usual
    assert embed(only("emb", lanes=[lane]), usual_lane=usual).lane is lane


@pytest.mark.parametrize("lane", Lane)
def test_another_priority_than_the_allowed_one_is_refused(embed, lane):
    for priority in (common_pb2.PRIORITY_INTERACTIVE, common_pb2.PRIORITY_BULK):
        caller = only("emb", lanes=[lane])
        if Lane(priority) is lane:
            assert embed(caller, priority=priority).lane is lane
        else:
            error = refusal(embed, caller, priority=priority)
            assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PRIORITY_NOT_ALLOWED")
