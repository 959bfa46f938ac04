"""Resident memory over many batches, in a process of its own."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_BATCHES = 1000
MOST_GROWTH = 0.03
RUN = """
import json, random, sys
from array import array
import psutil
from worker.model.checkpoint import resolve_checkpoint
from worker.packed_runner import PackedRunner
from worker.placement import Placement

checkpoint = resolve_checkpoint(sys.argv[1], task=None, name=None, revision="x")
runner = PackedRunner(checkpoint, Placement.choose("cpu", sys.argv[2]), prefix_cache_bytes=1 << 20)
chance = random.Random(5)
instructions = [array("i", chance.choices(range(150_000), k=40)) for _ in range(60)]

def ids(num):
    return array("i", chance.choices(range(150_000), k=num))

def batch():
    prefixes = [chance.choice(instructions) for _ in range(chance.randrange(1, 4))]
    texts = [ids(int(2 ** chance.uniform(0, 8))) for _ in range(chance.randrange(3, 24))]
    return [prefixes[place % len(prefixes)] + text for place, text in enumerate(texts)] + texts[::2], prefixes

process, resident = psutil.Process(), []
for number in range(int(sys.argv[3])):
    runner.start(*batch())()
    resident.append(process.memory_info().rss)
print(json.dumps({"resident": resident, "cache": runner.stats().prefix_cache.num_bytes,
                  "evicted": runner.stats().prefix_cache.num_evicted}))
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_thousand_random_batches_leave_resident_memory_where_it_was(dtype, embedding_checkpoint, capsys):
    command = [sys.executable, "-c", RUN, str(embedding_checkpoint), dtype, str(NUM_BATCHES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    settled, last = max(found["resident"][: NUM_BATCHES // 4]), max(found["resident"][-NUM_BATCHES // 4 :])
    with capsys.disabled():
        print(f"\n{dtype}: {settled >> 20} MiB after {NUM_BATCHES // 4} batches, {last >> 20} MiB after {NUM_BATCHES}")
    assert found["evicted"] > 0, "the cache must have been full"
    assert found["cache"] <= 1 << 20
    assert last <= settled * (1 + MOST_GROWTH)
