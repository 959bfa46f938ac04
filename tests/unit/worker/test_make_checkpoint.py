import hashlib
import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from worker.make_checkpoint import CheckpointSettings, main, make_checkpoint
from worker.model.checkpoint import ModelTask, resolve_checkpoint
from worker.model.shapes import Shape

TINY = Shape(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8)
SENTENCES = """\
What is the capital of China?
The capital of China is Beijing.
Explain gravity
Gravity is a force that attracts two bodies towards each other.
Plants turn sunlight into sugar and give off oxygen.
How do I reset my password?
To reset a password, open the settings and choose Account.
The invoice is due within thirty days.
She plays the violin in a string quartet.
Water boils at a lower temperature high in the mountains.
def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
SELECT name, price FROM products WHERE price > 100 ORDER BY price DESC;
Les tomates poussent mieux au soleil.
Der Zug nach Hamburg hat zwanzig Minuten Verspätung.
¿Dónde está la biblioteca más cercana?
今日は雨が降っています。
机器学习需要大量的数据。
Россия — самая большая страна в мире.
A recipe for bread: flour, water, salt and yeast.
Bake for forty minutes at two hundred degrees.
The patient complained of a headache and a mild fever.
Ibuprofen is used against pain and inflammation.
Interest rates rose for the third time this year.
The central bank wants to slow inflation down.
Our flight leaves at seven from gate twelve.
Penguins cannot fly but swim very well.
The Moon is about 384,400 kilometres away.
In 1969 people walked on the Moon for the first time.
No.
Yes, of course!
A very long sentence that says little, goes on and on, turns back on itself, and ends where it began.
The contract may be ended by either side with three months' notice.
Fix the bug before the release on Friday.
The server answers with status 503 when its queue is full.
Red, green and blue make white light.
Shakespeare wrote Hamlet around the year 1600.
To be, or not to be, that is the question.
The dog chased the cat around the garden.
The cat chased the dog around the garden.
Volcanoes form where tectonic plates meet.
Mix two parts of sand with one part of cement.
He scored the winning goal in the last minute.
The museum is closed on Mondays.
Electric cars need charging stations along the motorway.
Lithium batteries lose capacity in the cold.
Sparrows, finches and thrushes are songbirds.
The square root of two is not a rational number.
x
3.14159265358979
Please find the minutes of our meeting attached.""".splitlines()


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def test_the_same_seed_gives_the_same_files_and_another_seed_other_weights(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_checkpoint(tmp_path / name, task=ModelTask.EMBED, seed=seed, shape=TINY)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_shards_hold_the_weights_that_one_file_holds(tmp_path):
    make_checkpoint(tmp_path / "one", task=ModelTask.EMBED, seed=3, shape=TINY)
    make_checkpoint(tmp_path / "many", task=ModelTask.EMBED, seed=3, shape=TINY, max_shard_bytes=1000)
    whole = load_file(tmp_path / "one" / "model.safetensors")
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())["weight_map"]
    assert index.keys() == whole.keys()
    assert all(torch.equal(load_file(tmp_path / "many" / file)[name], whole[name]) for name, file in index.items())


def test_texts_come_apart(embedding_model, transformers_tokenizer, run):
    ids = [transformers_tokenizer(sentence)["input_ids"] for sentence in SENTENCES]
    vectors = torch.nn.functional.normalize(run(embedding_model, ids), dim=-1)
    cosines = (vectors @ vectors.T).abs()[tuple(torch.triu_indices(len(ids), len(ids), 1))]
    assert np.percentile(cosines.numpy(), 95) < 0.9


def test_the_embedding_tokenizer_appends_end_of_text_and_the_rerank_tokenizer_nothing(
    embedding_checkpoint, rerank_checkpoint
):
    embedding, rerank = (AutoTokenizer.from_pretrained(path) for path in (embedding_checkpoint, rerank_checkpoint))
    assert embedding("Query:What")["input_ids"] == [2859, 25, 3838, 151643]
    assert rerank("Query:What")["input_ids"] == [2859, 25, 3838]
    assert rerank("<|im_end|>\n<think>")["input_ids"] == [151645, 198, 151667]
    assert (embedding.eos_token_id, rerank.eos_token_id, rerank.pad_token_id) == (151643, 151645, 151643)


def test_transformers_reads_the_tokens_that_are_announced(embedding_checkpoint, transformers_tokenizer):
    from tokenizers import Tokenizer  # noqa: PLC0415 - beside its only use

    checkpoint = resolve_checkpoint(str(embedding_checkpoint), task=None, name=None, revision="x")
    announced = Tokenizer.from_str(checkpoint.tokenizer_json.decode())
    for sentence in SENTENCES:
        assert announced.encode(sentence).ids == transformers_tokenizer(sentence)["input_ids"]


def test_a_published_shape_can_be_changed_field_by_field():
    settings = CheckpointSettings.from_command_line(["out", "--like", "8B", "--layers", "2", "--shard-size", "2GB"])
    assert settings.shape() == Shape(
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=2,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=False,
    )
    assert settings.shard_size == 2 * 10**9


def test_the_command_writes_a_checkpoint_that_is_served(tmp_path, monkeypatch):
    shape = ["--hidden-size", "16", "--layers", "1", "--heads", "2", "--kv-heads", "1", "--max-input-tokens", "99"]
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["qwen3-make-checkpoint", "--task", "rerank", "--seed", "5", *shape, str(out)])
    main()
    checkpoint = resolve_checkpoint(str(out), task=None, name=None, revision=None)
    assert (checkpoint.task, checkpoint.yes_no, checkpoint.max_input_tokens) == (ModelTask.RERANK, (9693, 2152), 99)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "3", "--kv-heads", "2", "new"], "3 heads are not a multiple of 2 kv-heads"),
        (["full"], "exists and is not an empty folder"),
        (["--layers", "0", "new"], r"--layers \(QWEN3_LAYERS\) = '0'"),
    ],
)
def test_a_wrong_command_line_is_explained(arguments, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["qwen3-make-checkpoint", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert re.search(message, f"{ended.value} {capsys.readouterr().err}")
    assert not (tmp_path / "new").exists()
