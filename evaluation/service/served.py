"""Which served model is meant, and that it stays the same."""

from evaluation.errors import EvaluationError
from evaluation.protocol.settings import Served
from qwen3_client import Client, ModelInfo


def find_model(client: Client, model: str, task: str) -> ModelInfo:
    """The model of this id, or for an empty one the default of `task`. Raises EvaluationError where there is none."""
    served = client.models()
    for found in served:
        if found.task == task and (found.id == model or (not model and found.default_for_task)):
            return found
    names = ", ".join(found.id for found in served if found.task == task) or "none"
    raise EvaluationError(f"no {task} model {model!r} is served; there is: {names}")


def check_revision(served: Served, found: str) -> None:
    """Raises EvaluationError where an answer names another revision: scores of two would be mixed."""
    if found != served.revision:
        raise EvaluationError(
            f"{served.model} was at revision {served.revision} when the run began and is at {found} now: run again"
        )
