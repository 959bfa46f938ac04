"""Which instruction each side of a task is sent with, by the authors' rules."""

import pytest
from tokenizers import Tokenizer

from evaluation.protocol import rules
from evaluation.protocol.rules import (
    SIMILAR_TEXT,
    PlannedInstruction,
    Protocol,
    TaskInstruction,
    plan_instruction,
    sendable,
)
from gateway.config import GatewaySettings
from jobqueue.messages import Operation
from tests.support.echo import tokenizer_json

OWN = TaskInstruction(query="Given a claim, find it", source="list")


def planned(name="SomeTask", kind="Retrieval", said=OWN, **deviations):
    return plan_instruction(name, kind, said, Protocol(**deviations))


def test_a_retrieval_task_instructs_its_queries_and_not_its_documents():
    assert planned() == PlannedInstruction(query=OWN.query, document=None, source="list")


@pytest.mark.parametrize("name", ["ArguAna", "CQADupstackGamingRetrieval", "CQADupstackUnixRetrieval"])
def test_three_retrieval_tasks_instruct_their_documents_too(name):
    assert planned(name).document == OWN.query


def test_documents_of_reranking_tasks_are_instructed_and_those_of_instruction_reranking_are_not():
    assert planned(kind="Reranking").document == OWN.query
    assert planned(kind="InstructionReranking").document is None


@pytest.mark.parametrize("kind", ["STS", "PairClassification"])
def test_similarity_tasks_have_one_instruction_for_both_texts_whatever_is_said_of_them(kind):
    assert planned(kind=kind) == PlannedInstruction(
        query=SIMILAR_TEXT, document=SIMILAR_TEXT, source=f"protocol of {kind}"
    )


def test_a_list_may_say_something_else_of_documents():
    said = TaskInstruction(query="of queries", document="of documents", source="file")
    assert planned(said=said).document == "of documents"
    assert planned("ArguAna", said=said).document == "of documents"


def test_each_deviation_is_an_option_and_is_named():
    assert planned(use_instructions=False) == PlannedInstruction(query=None, document=None, source="switched off")
    assert planned(kind="STS", similar_text=False).query == OWN.query
    assert planned(kind="STS", similar_text=False, document_instructions=False).document == OWN.query
    assert planned("ArguAna", document_instructions=False).document is None
    assert Protocol().deviations() == []
    assert Protocol(similar_text=False, placeholder="-").deviations() == ["similar_text=False", "placeholder=-"]


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u3000"])
def test_of_a_text_that_the_service_would_refuse_nothing_is_left(text):
    assert sendable(text) == ""


def test_any_other_text_is_sent_as_it_is():
    assert sendable("  a text\n") == "  a text\n"


@pytest.mark.parametrize(
    ("text", "kept"), [("ab" * 9, "ababababab"), ("\u20ac" * 9, "\u20ac" * 3), (" " * 20 + "a", "")]
)
def test_a_long_text_is_cut_between_characters(text, kept, monkeypatch):
    monkeypatch.setattr(rules, "MAX_TEXT_BYTES", 10)
    assert sendable(text) == kept


def test_of_no_text_is_more_sent_than_the_gateway_takes_and_of_none_less_than_the_authors_read():
    longest_token = max(map(len, Tokenizer.from_buffer(tokenizer_json(Operation.EMBED)).get_vocab()))
    assert longest_token * rules.AUTHORS_MAX_INPUT_TOKENS <= rules.MAX_TEXT_BYTES
    assert GatewaySettings.model_fields["max_text_bytes"].default == rules.MAX_TEXT_BYTES
