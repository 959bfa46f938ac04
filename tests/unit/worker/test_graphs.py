"""Batches padded to the size of a graph. Capturing needs CUDA; here a replay runs the same fixed tensors anew."""

import random
from array import array

import pytest
import torch
from torch.nn.functional import cosine_similarity

from runtime.errors import SettingError
from worker.model.checkpoint import resolve_checkpoint
from worker.model.graphs import Graphs, Size, pad
from worker.packed_runner import PackedRunner
from worker.packing import pack
from worker.placement import Placement
from worker.prefix_cache import PrefixRecorder

CPU = torch.device("cpu")
LEAST_COSINE = 0.999999
SHARED = [*range(100, 130)]


def packed(sequences, **options):
    return pack([array("i", ids) for ids in sequences], CPU, **options)


def least_cosine(ours, theirs):
    return float(cosine_similarity(ours.double(), theirs.double()).min())


def capture(run):
    """As a graph does, every replay writes to the same memory."""
    out = run().clone()

    def replay():
        return out.copy_(run())

    return replay


@pytest.fixture(scope="module")
def graphs(embedding_model):
    return Graphs(embedding_model, CPU, capture=capture, sizes=(64, 256))


@pytest.mark.parametrize(
    "sequences",
    [
        [[5]],
        [[*range(64)]],
        [[1, 2, 3], [4], [5, 6]],
        [[*SHARED, 1], [*SHARED, 2, 3], SHARED],
        [[1, 2], [1, 2], [3]],
    ],
    ids=["one token", "full", "plain", "shared", "duplicates"],
)
def test_a_padded_batch_has_the_vectors_of_the_batch(sequences, embedding_model):
    batch = packed(sequences)
    whole = embedding_model.forward(pad(batch, Size(tokens=64)))
    ours = whole[: len(batch.last_rows)] if batch.outputs is None else whole[batch.outputs]
    assert least_cosine(ours, embedding_model.forward(batch)) >= LEAST_COSINE


def test_replays_of_any_batches_one_after_the_other_have_their_own_vectors(graphs, embedding_model):
    """What a batch left in the fixed tensors must not reach the next."""
    chance = random.Random(3)
    for _ in range(40):
        shared = [chance.randrange(1000) for _ in range(chance.choice([0, 0, 12]))]
        lengths = [chance.randrange(1, 20) for _ in range(chance.randrange(1, 9))]
        sequences = [shared + [chance.randrange(1000) for _ in range(length)] for length in lengths]
        batch = packed(sequences)
        ours = graphs.find(batch).forward(batch)
        assert ours.shape[0] == len(sequences)
        assert least_cosine(ours, embedding_model.forward(batch)) >= LEAST_COSINE


def test_a_result_outlives_the_next_replay(graphs):
    first, second = packed([[1, 2, 3]]), packed([[9, 9]])
    ours = graphs.find(first).forward(first)
    kept = ours.clone()
    graphs.find(second).forward(second)
    assert torch.equal(ours, kept)


def test_the_smallest_size_that_holds_a_batch_is_used(graphs):
    assert graphs.find(packed([[1] * 64])).size.tokens == 64
    assert graphs.find(packed([[1] * 65])).size.tokens == 256
    assert graphs.find(packed([[1] * 256])).size.tokens == 256


def test_what_no_graph_has_room_for_is_left_to_the_model(graphs, embedding_model):
    assert graphs.find(packed([[1] * 257])) is None
    many = [[*SHARED, number] for number in range(60)]
    assert graphs.find(packed(many)) is None, "its keys, gathered for each, are more than four times the size"
    assert graphs.find(packed([[number] for number in range(60)])) is None, "too many sequences"
    prefix = array("i", SHARED)
    keeping = packed([[*SHARED, 1]], kept=[prefix])
    assert graphs.find(keeping) is None
    recorder = PrefixRecorder([prefix], keeping.kept_rows, num_layers=4)
    embedding_model.forward(keeping, recorder.record)
    assert graphs.find(packed([[*SHARED, 1]], cached=list(recorder.recorded()))) is None


def test_graphs_are_refused_where_there_is_no_cuda(embedding_checkpoint):
    checkpoint = resolve_checkpoint(str(embedding_checkpoint), task=None, name=None, revision="x")
    with pytest.raises(SettingError, match="--cuda-graphs: runs on CUDA, not on cpu"):
        PackedRunner(checkpoint, Placement.choose("cpu", "float32"), cuda_graphs=True)
