from array import array

import torch

from worker.prefix_cache import PrefixCache, PrefixKeysValues, PrefixRecorder

LAYERS, HEADS, WIDTH = 2, 1, 4
BYTES_A_TOKEN = LAYERS * HEADS * WIDTH * 4 * 2


def ids(*tokens):
    return array("i", tokens)


SYSTEM = ids(*range(20))
FIRST, SECOND, THIRD = (SYSTEM + ids(*range(start, start + 10)) for start in (100, 200, 300))


def keys_values(prefix, fill=0.0):
    shape = (LAYERS, len(prefix), HEADS, WIDTH)
    return PrefixKeysValues(ids=prefix, keys=torch.full(shape, fill), values=torch.full(shape, fill))


def cache_of(*prefixes, tokens=1000):
    cache = PrefixCache(max_bytes=tokens * BYTES_A_TOKEN, token_bytes=BYTES_A_TOKEN)
    for prefix in prefixes:
        cache.keep(keys_values(prefix))
    return cache


def found(cache, *prefixes):
    return [kept.ids for kept in cache.find(prefixes)]


def test_the_longest_kept_beginning_is_found_once_for_all_that_have_it():
    cache = cache_of(SYSTEM, FIRST)
    assert found(cache, FIRST, SECOND, THIRD) == [FIRST, SYSTEM]
    assert found(cache, ids(7, 8, 9), SYSTEM[:19]) == []
    assert (cache.stats.num_hits, cache.stats.num_misses) == (3, 2)


def test_a_prefix_is_worth_keeping_when_a_second_batch_has_it():
    cache = cache_of()
    assert cache.worth_keeping([FIRST, FIRST]) == []
    assert cache.worth_keeping([FIRST]) == [FIRST]


def test_of_prefixes_that_differ_their_common_beginning_is_worth_keeping():
    cache = cache_of()
    cache.worth_keeping([FIRST])
    assert cache.worth_keeping([SECOND, THIRD]) == [SYSTEM]


def test_what_is_kept_is_not_kept_again_unless_more_tokens_agree():
    cache = cache_of(SYSTEM)
    cache.worth_keeping([FIRST])
    assert cache.worth_keeping([SECOND, SYSTEM]) == []
    assert cache.worth_keeping([FIRST]) == [FIRST]
    cache.worth_keeping([SYSTEM + ids(1, 2, 3)])
    assert cache.worth_keeping([SYSTEM + ids(1, 2, 3)]) == [], "three tokens more are not worth it"


def test_short_agreements_and_empty_prefixes_are_not_worth_keeping():
    cache = cache_of()
    cache.worth_keeping([ids(1, 2, 3), ids()])
    assert cache.worth_keeping([ids(1, 2, 3), ids()]) == []


def test_the_least_recently_used_prefix_makes_room():
    cache = cache_of(FIRST, SECOND, tokens=60)
    found(cache, FIRST)
    cache.keep(keys_values(THIRD))
    assert found(cache, FIRST, SECOND, THIRD) == [FIRST, THIRD]
    assert (cache.stats.num_evicted, cache.stats.num_bytes) == (1, 60 * BYTES_A_TOKEN)


def test_what_is_larger_than_the_cache_is_not_worth_keeping():
    cache = cache_of(tokens=25)
    cache.worth_keeping([FIRST])
    assert cache.worth_keeping([FIRST]) == []
    assert cache.worth_keeping([SECOND]) == [SYSTEM]


def test_what_is_worth_keeping_fits_together():
    cache = cache_of(tokens=60)
    others = [ids(*range(start, start + 25)) for start in (1000, 2000, 3000)]
    cache.worth_keeping(others)
    assert cache.worth_keeping(others) == others[:2]


def test_a_cache_of_no_bytes_keeps_nothing():
    cache = cache_of(tokens=0)
    cache.worth_keeping([FIRST])
    assert cache.worth_keeping([FIRST]) == []


def test_a_cleared_cache_is_empty_and_works():
    cache = cache_of(FIRST)
    cache.clear()
    assert (found(cache, FIRST), cache.stats.num_bytes) == ([], 0)
    cache.keep(keys_values(FIRST))
    assert found(cache, FIRST) == [FIRST]


def test_many_prefixes_are_remembered_but_not_for_ever():
    cache = cache_of()
    prefixes = [ids(*range(start, start + 10)) for start in range(0, 10 * 300, 10)]
    for prefix in prefixes:
        cache.worth_keeping([prefix])
    assert cache.worth_keeping([prefixes[0]]) == []
    assert cache.worth_keeping([prefixes[-1]]) == [prefixes[-1]]


def test_the_recorder_keeps_its_rows_of_every_layer():
    recorder = PrefixRecorder([ids(5, 6)], [torch.tensor([3, 1])], num_layers=2)
    layers = [torch.arange(8.0).view(4, 1, 2), torch.arange(8.0, 16.0).view(4, 1, 2)]
    for keys in layers:
        recorder.record(keys, -keys)
    (kept,) = recorder.recorded()
    assert kept.ids == ids(5, 6)
    assert torch.equal(kept.keys, torch.stack([keys[[3, 1]] for keys in layers]))
    assert torch.equal(kept.values, -kept.keys)
