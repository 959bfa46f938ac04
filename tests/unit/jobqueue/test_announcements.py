import json
from dataclasses import asdict

import pytest

from jobqueue.announcements import ANNOUNCEMENT_VERSION, Announcement, _decode, _encode, tokenizer_digest
from jobqueue.messages import JOB_VERSION, DecodeError, Operation

ANNOUNCEMENT = Announcement(
    model_id="Qwen/Qwen3-Embedding-0.6B",
    revision="c54f2e6e80b2",
    operation=Operation.EMBED,
    native_dimensions=1024,
    max_input_tokens=32768,
    default_instruction="Given a web search query, retrieve relevant passages",
    tokenizer_digest="ab" * 16,
    attention_cost=3.5e-5,
    wakeable=False,
    dtype="bfloat16",
    engine="packed",
)


def stamped(announced):
    return f"123 456 {announced}".encode()


def changed(**fields):
    return stamped(json.dumps(json.loads(_encode(ANNOUNCEMENT)) | fields))


def without(name):
    fields = json.loads(_encode(ANNOUNCEMENT))
    del fields[name]
    return stamped(json.dumps(fields))


def test_an_announcement_comes_back_as_it_was_made():
    record = _decode(stamped(_encode(ANNOUNCEMENT)))
    assert record.announcement == ANNOUNCEMENT
    assert isinstance(record.announcement.operation, Operation)
    assert record.first_announced_ms == 123


def test_a_model_is_served_from_the_queue_of_its_revision():
    assert ANNOUNCEMENT.queue == "Qwen/Qwen3-Embedding-0.6B@c54f2e6e80b2"


@pytest.mark.parametrize("field", ["version", "job_version"])
def test_another_version_is_skipped_whatever_else_it_says(field):
    assert _decode(changed(**{field: 2, "a later field": [1]})) is None


def test_this_version_is_what_is_sent():
    fields = json.loads(_encode(ANNOUNCEMENT))
    assert (fields["version"], fields["job_version"]) == (ANNOUNCEMENT_VERSION, JOB_VERSION)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"1 2",
        b"zz 2 " + _encode(ANNOUNCEMENT).encode(),
        _encode(ANNOUNCEMENT).encode(),
        *[stamped(text) for text in ("", "{", "1", "null", "[]", '"text"', "{}")],
        changed(operation=9),
        changed(operation=None),
        changed(unknown=1),
        changed(model_id="my model"),
        changed(revision="a{b}"),
        changed(max_input_tokens="many"),
        changed(wakeable=None),
        *[without(name) for name in ("version", "job_version")],
        *[without(name) for name in asdict(ANNOUNCEMENT) if name != "job_version"],
    ],
)
def test_what_is_no_announcement_is_refused(value):
    with pytest.raises(DecodeError, match="not a model announcement"):
        _decode(value)


def test_a_digest_names_the_tokenizers_bytes():
    assert tokenizer_digest(b"a") == tokenizer_digest(b"a") != tokenizer_digest(b"b")
    assert len(bytes.fromhex(tokenizer_digest(b"a"))) == 16


def test_an_announcement_under_another_queues_name_is_refused():
    with pytest.raises(DecodeError, match="under someone@1"):
        _decode(changed(), queue="someone@1")
