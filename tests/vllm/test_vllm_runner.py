"""vLLM as our engine against vLLM used alone, as the model cards show it, and against our own packed engine."""

import random
import threading
from array import array

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from runtime.errors import SettingError
from worker.heads import score_rows
from worker.model.checkpoint import resolve_checkpoint
from worker.model.weights import load_yes_minus_no
from worker.packed_runner import PackedRunner
from worker.placement import Placement
from worker.vllm_runner import VllmRunner

# Of vLLM itself, torch and what they import, on the way in.
pytestmark = pytest.mark.filterwarnings("default::FutureWarning", "default::DeprecationWarning", "default::UserWarning")

LEAST_COSINE = 0.999999
LARGEST_SCORE_DIFFERENCE = 2e-6
MAX_INPUT_TOKENS = 600
CPU = Placement(device=torch.device("cpu"), dtype_name="float32")
BFLOAT16 = Placement(device=torch.device("cpu"), dtype_name="bfloat16")
END_OF_TEXT = 151643

# What vLLM sets up is the process's: a model that is collected takes along what the others need.
kept_alive = []


def runner_of(folder, placement=CPU) -> VllmRunner:
    runner = VllmRunner(resolve(folder), placement, max_input_tokens=MAX_INPUT_TOKENS, device_memory_share=1.0)
    kept_alive.append(runner)
    return runner


def resolve(folder):
    return resolve_checkpoint(str(folder), task=None, name=None, revision="test")


def sequences_of(*lengths: int) -> list[array]:
    chance = random.Random(str(lengths))
    return [
        array("i", [*(chance.randrange(END_OF_TEXT) for _ in range(length - 1)), END_OF_TEXT]) for length in lengths
    ]


def least_cosine(ours, theirs) -> float:
    assert ours.shape == theirs.shape
    return float(cosine_similarity(ours.double(), theirs.double()).min())


@pytest.fixture(scope="module")
def runner(embedding_checkpoint) -> VllmRunner:
    return runner_of(embedding_checkpoint)


@pytest.fixture(scope="module")
def rerank_runner(rerank_checkpoint) -> VllmRunner:
    return runner_of(rerank_checkpoint)


@pytest.fixture(scope="module")
def packed(embedding_checkpoint) -> PackedRunner:
    return PackedRunner(resolve(embedding_checkpoint), CPU)


@pytest.fixture(scope="module")
def vllm_alone(runner):
    """Makes an LLM as its users do; eager, which is another path than ours and starts faster."""
    import vllm  # noqa: PLC0415 - after the runner has set what it reads

    def make(folder, **options):
        llm = vllm.LLM(
            model=str(folder),
            runner="pooling",
            dtype="float32",
            max_model_len=MAX_INPUT_TOKENS,
            enforce_eager=True,
            kv_cache_memory_bytes=2**28,
            use_tqdm_on_load=False,
            **options,
        )
        kept_alive.append(llm)
        return llm

    return make


@pytest.fixture(scope="module")
def embed_alone(vllm_alone, embedding_checkpoint):
    llm = vllm_alone(embedding_checkpoint)

    def embed(sequences) -> torch.Tensor:
        outputs = llm.embed([{"prompt_token_ids": list(ids)} for ids in sequences], use_tqdm=False)
        return torch.tensor([output.outputs.embedding for output in outputs])

    return embed


@pytest.mark.parametrize(
    "lengths", [[1], [MAX_INPUT_TOKENS], [33] * 3, [1, 2, 300, 5, 128, 129, 17, MAX_INPUT_TOKENS, 1]]
)
def test_a_batch_has_the_vectors_of_vllm_alone_and_of_the_packed_engine(lengths, runner, embed_alone, packed):
    sequences = sequences_of(*lengths)
    ours = runner.start(sequences)()
    assert ours.dtype == torch.float32
    assert ours.device == torch.device("cpu")
    alone = embed_alone(sequences)
    plain = packed.start(sequences)()
    print(f"cosine to vLLM alone {least_cosine(ours, alone):.9f}, to packed {least_cosine(ours, plain):.9f}")
    assert least_cosine(ours, alone) >= LEAST_COSINE
    assert torch.allclose(normalize(ours), alone, atol=1e-5)
    assert least_cosine(ours, plain) >= LEAST_COSINE
    assert torch.allclose(ours, plain, atol=1e-4)


def test_prefixes_from_the_cache_change_nothing(runner, packed):
    [shared] = sequences_of(300)
    sequences = [shared[:257] + tail for tail in sequences_of(1, 40, 200)] + [shared, shared[:200], shared]
    first = runner.start(sequences)()
    before = runner.stats().num_computed_tokens
    again = runner.start(sequences)()
    assert runner.stats().num_computed_tokens - before < 32 * len(sequences), "nearly all must come from the cache"
    plain = packed.start(sequences)()
    assert least_cosine(first, plain) >= LEAST_COSINE
    assert least_cosine(again, plain) >= LEAST_COSINE


def test_more_than_vllm_schedules_at_once_is_one_batch(runner, packed):
    sequences = sequences_of(*range(1, 300))
    ours = runner.start(sequences)()
    assert least_cosine(ours, packed.start(sequences)()) >= LEAST_COSINE


def test_a_batch_may_be_started_in_one_thread_and_awaited_in_another(runner):
    sequences = sequences_of(9, 70)
    started = []
    thread = threading.Thread(target=lambda: started.append(runner.start(sequences)))
    thread.start()
    thread.join()
    assert least_cosine(started[0](), runner.start(sequences)()) >= LEAST_COSINE


def test_a_batch_that_vllm_refuses_leaves_nothing_behind(runner):
    sequences = sequences_of(5, 90)
    before = runner.start(sequences)()
    with pytest.raises(Exception, match="maximum context length"):
        runner.start([*sequences, *sequences_of(MAX_INPUT_TOKENS + 1)])
    assert least_cosine(runner.start(sequences)(), before) >= LEAST_COSINE


def scores(hidden, yes_minus_no) -> np.ndarray:
    logits = np.frombuffer(score_rows(hidden, yes_minus_no).rows, "<f4").astype(np.float64)
    return 1 / (1 + np.exp(-logits))


def test_rerank_scores_are_those_of_vllm_alone_and_of_the_packed_engine(rerank_runner, rerank_checkpoint, vllm_alone):
    sequences = sequences_of(1, 7, 128, 300, 300)
    checkpoint = resolve(rerank_checkpoint)
    yes_minus_no = load_yes_minus_no(checkpoint.weight_files, checkpoint.config, checkpoint.yes_no)
    ours = scores(rerank_runner.start(sequences)(), yes_minus_no)
    llm = vllm_alone(
        rerank_checkpoint,
        hf_overrides={
            "architectures": ["Qwen3ForSequenceClassification"],
            "classifier_from_token": ["no", "yes"],
            "is_original_qwen3_reranker": True,
        },
    )
    outputs = llm.classify([{"prompt_token_ids": list(ids)} for ids in sequences], use_tqdm=False)
    alone = np.array([output.outputs.probs[0] for output in outputs])
    plain = scores(PackedRunner(checkpoint, CPU).start(sequences)(), yes_minus_no)
    assert np.ptp(plain) > 1e-3, "the scores must differ for their equality to say something"
    print(f"score difference to vLLM alone {np.abs(ours - alone).max()}, to packed {np.abs(ours - plain).max()}")
    assert np.abs(ours - alone).max() <= LARGEST_SCORE_DIFFERENCE
    assert np.abs(ours - plain).max() <= LARGEST_SCORE_DIFFERENCE


def test_bfloat16_is_as_near_to_float32_as_the_packed_engine(embedding_checkpoint, packed):
    sequences = sequences_of(*range(4, 260, 8))
    exact = packed.start(sequences)().double()
    rows = [
        runner_of(embedding_checkpoint, BFLOAT16).start(sequences)(),
        PackedRunner(resolve(embedding_checkpoint), BFLOAT16).start(sequences)(),
    ]
    ours, plain = [float((1 - cosine_similarity(found.double(), exact)).mean()) for found in rows]
    print(f"1 - cosine to float32: vLLM {ours:.2e}, packed {plain:.2e}")
    assert rows[0].dtype == torch.float32
    assert ours <= 1.5 * plain


def test_it_has_names_for_logs_and_counts_what_it_computed(runner):
    assert (runner.engine, runner.attention, runner.kernels) == ("vllm", "CPU_ATTN", "vllm")
    sequences = [array("i", [7] * 100)] * 2
    before = runner.stats()
    runner.start(sequences)()
    after = runner.stats()
    assert runner.count_computed(sequences) == after.num_input_tokens - before.num_input_tokens == 200
    assert after.num_computed_tokens - before.num_computed_tokens == 104, "three blocks of 32 were shared"


def test_a_device_that_this_vllm_does_not_run_on_is_named(embedding_checkpoint, runner):
    with pytest.raises(SettingError, match=r"--device cuda:0: the vllm installed here runs on cpu"):
        runner_of(embedding_checkpoint, Placement(device=torch.device("cuda:0"), dtype_name="bfloat16"))


def test_a_dtype_that_vllm_does_not_run_in_is_named(embedding_checkpoint, runner, monkeypatch):
    from vllm.platforms import current_platform  # noqa: PLC0415 - after the runner has set what it reads

    monkeypatch.setattr(type(current_platform), "supported_dtypes", [torch.bfloat16])
    with pytest.raises(SettingError, match=r"--dtype float32: vllm does not support it on cpu"):
        runner_of(embedding_checkpoint)


def test_memory_that_does_not_suffice_is_a_setting_error(embedding_checkpoint, runner, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1000000")
    with pytest.raises(SettingError, match=r"--engine vllm: .*VLLM_CPU_KVCACHE_SPACE"):
        runner_of(embedding_checkpoint)


def test_without_vllm_it_says_what_to_install(embedding_checkpoint, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    with pytest.raises(SettingError, match="pip install vllm"):
        runner_of(embedding_checkpoint)
