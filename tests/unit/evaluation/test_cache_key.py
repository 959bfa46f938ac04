"""A setting that changes a score has to change the key, or mteb would silently hand out another setting's scores."""

from dataclasses import fields, is_dataclass, replace

import pytest

from evaluation.protocol.rules import Protocol
from evaluation.protocol.settings import RERANK_TEMPLATE, FirstStage, Served, Settings

BASE = Settings(
    served=Served(
        model="Qwen/Qwen3-Embedding-0.6B",
        task="embedding",
        revision="c54f2e6e80b2",
        max_input_tokens=8192,
        dtype="bfloat16",
        engine="packed",
        native_dimensions=1024,
    ),
    instructions="0123456789ab",
    dimensions=1024,
    first_stage=FirstStage(model="Qwen/Qwen3-Embedding-0.6B", run="c54f2e6e80b2-0123456789ab", top_k=100),
)
OTHERS = {
    "served.model": "Qwen/Qwen3-Embedding-4B",
    "served.task": "rerank",
    "served.revision": "97b0c614be4d",
    "served.max_input_tokens": 32768,
    "served.dtype": "float32",
    "served.engine": "transformers",
    "served.prefix_cache": False,
    "served.native_dimensions": 2560,
    "protocol.use_instructions": False,
    "protocol.similar_text": False,
    "protocol.document_instructions": False,
    "protocol.placeholder": "-",
    "instructions": "ba9876543210",
    "dimensions": 256,
    "encoding": "int8",
    "float_queries": True,
    "rescore": 40,
    "score_type": "logit",
    "first_stage.model": "Qwen/Qwen3-Embedding-8B",
    "first_stage.run": "97b0c614be4d-ba9876543210",
    "first_stage.top_k": 200,
    "mteb": "2.0.0",
}


def leaves(value: object, prefix: str = "") -> list[str]:
    """The settings, those of settings included, as `served.dtype`."""
    if not is_dataclass(value):
        return [prefix.rstrip(".")]
    return [name for field in fields(value) for name in leaves(getattr(value, field.name), f"{prefix}{field.name}.")]


def changed(settings: object, name: str, value: object) -> object:
    outer, _, inner = name.partition(".")
    return replace(settings, **{outer: changed(getattr(settings, outer), inner, value) if inner else value})


def test_every_setting_is_tried_here():
    assert sorted(OTHERS) == sorted(leaves(BASE))


@pytest.mark.parametrize("name", OTHERS)
def test_another_value_is_another_key_and_another_folder(name):
    other = changed(BASE, name, OTHERS[name])
    assert other.key != BASE.key
    assert other.run_revision != BASE.run_revision


def test_no_first_stage_is_another_key():
    assert replace(BASE, first_stage=None).key != BASE.key


def test_no_two_of_these_settings_have_the_same_key():
    keys = {changed(BASE, name, value).key for name, value in OTHERS.items()}
    assert len(keys) == len(OTHERS)


def test_the_same_settings_are_the_same_key():
    assert replace(BASE, protocol=Protocol()).key == BASE.key


def test_the_folders_name_tells_the_models_revision():
    assert BASE.run_revision == f"c54f2e6e80b2-{BASE.key}"


def test_what_is_not_as_the_authors_have_it_is_named():
    assert BASE.deviations() == []
    assert changed(BASE, "served.max_input_tokens", 32768).deviations() == ["max_input_tokens=32768"]
    assert replace(BASE, dimensions=256, encoding="int8").deviations() == ["dimensions=256", "encoding=int8"]
    other_stage = FirstStage(model="mine/Other", run="a", top_k=50)
    assert replace(BASE, first_stage=other_stage).deviations() == ["first_stage=Other", "top_k=50"]


def test_a_rerankers_template_is_stated_whatever_the_settings():
    reranker = replace(BASE, served=replace(BASE.served, task="rerank", native_dimensions=0), dimensions=0)
    assert reranker.deviations() == [RERANK_TEMPLATE]
