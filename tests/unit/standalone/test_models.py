import pytest

from standalone.models import ModelSpec


@pytest.mark.parametrize(
    ("text", "name", "task"),
    [
        ("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-0.6B", None),
        ("embedding:my/model", "my/model", "embedding"),
        ("rerank:/srv/models/ranker", "/srv/models/ranker", "rerank"),
        ("./folder:with-colon", "./folder:with-colon", None),
        ("rerank:./a:b", "./a:b", "rerank"),
    ],
)
def test_a_task_may_stand_before_the_model(text, name, task):
    assert ModelSpec.parse(text) == ModelSpec(name=name, task=task)


@pytest.mark.parametrize("text", ["embed:my/model", "", "rerank:"])
def test_an_unknown_task_or_a_missing_name_is_refused(text):
    with pytest.raises(ValueError, match=r"task|missing"):
        ModelSpec.parse(text)
