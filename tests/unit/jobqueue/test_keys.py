import pytest
from redis.crc import key_slot

from jobqueue.keys import QueueKeys, check_queue_name, tokenizer_key
from jobqueue.lanes import Lane

NAME = "Qwen/Qwen3-Embedding-0.6B@c54f2e6e80b2"


def test_every_key_of_a_queue_has_the_name_the_protocol_gives_it():
    keys = QueueKeys(NAME)
    assert [keys.lane(lane.key) for lane in Lane] == [f"{{q:{NAME}}}:hi", f"{{q:{NAME}}}:lo"]
    assert keys.depth == f"{{q:{NAME}}}:depth"
    assert keys.workers == f"{{q:{NAME}}}:workers"
    assert keys.loading == f"{{q:{NAME}}}:loading"
    assert keys.dead == f"{{q:{NAME}}}:dead"
    assert keys.replies("gw1") == f"{{q:{NAME}}}:r:gw1"
    assert tokenizer_key("ab12") == "tokenizer:ab12"


def test_all_keys_of_a_queue_share_a_cluster_slot():
    keys = QueueKeys(NAME)
    names = [keys.lane("hi"), keys.lane("lo"), keys.depth, keys.workers, keys.loading, keys.dead, keys.replies("gw1")]
    assert len({key_slot(name.encode()) for name in names}) == 1


@pytest.mark.parametrize("name", [NAME, "m@1", "a.b-c/d:e+f_G@r.e-v_1", f"{'m' * 200}@{'r' * 64}"])
def test_safe_names_are_taken(name):
    check_queue_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "model",
        "@rev",
        "model@",
        "model@a@b",
        "model@a/b",
        "mo del@1",
        "model@1\n",
        "model{x}@1",
        "model}@1",
        "модель@1",
        "model@１",
        "model*@1",
        f"{'m' * 201}@1",
        f"m@{'r' * 65}",
    ],
)
def test_names_that_are_not_safe_in_a_key_are_refused(name):
    with pytest.raises(ValueError, match=r"queue name .*MODEL@REVISION"):
        check_queue_name(name)
    with pytest.raises(ValueError, match=r"queue name .*MODEL@REVISION"):
        QueueKeys(name)


def test_lanes_are_known_by_their_keys():
    assert [Lane.from_key(lane.key) for lane in Lane] == list(Lane)
