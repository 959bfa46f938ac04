"""What both kinds of models have: a place in the service, and prompts by name."""

from collections.abc import Mapping
from typing import Any

from qwen3_client.client import Client
from qwen3_client.errors import ModelNotFoundError
from qwen3_client.options import Priority, Truncation
from qwen3_client.results import ModelInfo


class RemoteModel:
    """A model behind `client`. `prompts` and `default_prompt_name` may be changed, as in the library."""

    def __init__(
        self,
        client: Client,
        model: ModelInfo,
        *,
        prompts: Mapping[str, str],
        default_prompt_name: str | None,
        truncation: Truncation,
        priority: Priority | None,
    ) -> None:
        if default_prompt_name is not None and default_prompt_name not in prompts:
            raise ValueError(f"default_prompt_name is {default_prompt_name!r}, but prompts has {', '.join(prompts)}")
        self._client = client
        self._model = model
        self._options: dict[str, Any] = {"model": model.id, "truncation": truncation, "priority": priority}
        self.prompts = dict(prompts)
        self.default_prompt_name = default_prompt_name

    @property
    def max_seq_length(self) -> int:
        """Tokens that the service takes of a text, or of a query and a document; the template is counted."""
        return self._model.max_input_tokens

    def get_max_seq_length(self) -> int:
        """The same."""
        return self.max_seq_length

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str:
        """The prompt that a call asks for, "" for none. Raises ValueError for a name that `prompts` does not have."""
        if prompt is not None and prompt_name is not None:
            raise ValueError("give prompt or prompt_name, not both")
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if prompt is not None or name is None:
            return prompt or ""
        if name not in self.prompts:
            raise ValueError(f"prompt_name is {name!r}, but prompts has {', '.join(self.prompts) or 'none'}")
        return self.prompts[name]


def served_model(client: Client, model_id: str, task: str) -> ModelInfo:
    """The model of that id, or without one the default of its task. Raises ModelNotFoundError, and what a call may."""
    models = [model for model in client.models() if model.task == task]
    for model in models:
        if model.id == model_id or (model.default_for_task and not model_id):
            return model
    wanted = f"no {task} model {model_id}" if model_id else f"no default {task} model"
    raise ModelNotFoundError(
        f"{wanted} is served, but {', '.join(model.id for model in models) or 'none'}", code="NOT_FOUND"
    )
