"""Where and in what a model runs."""

from dataclasses import dataclass

import torch

from runtime.errors import SettingError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A device, and the name of a dtype as logs and announcements use it."""

    device: torch.device
    dtype_name: str

    @classmethod
    def choose(cls, device: str, dtype: str) -> "Placement":
        """Resolve `auto`: CUDA where there is one, bfloat16 there and float32 on the CPU. Raises SettingError."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SettingError(f"--device {device}: this machine has no CUDA device, or torch no CUDA")
        if dtype == "auto":
            dtype = "bfloat16" if device.startswith("cuda") else "float32"
        return cls(device=_with_index(torch.device(device)), dtype_name=dtype)

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.dtype_name]


def _with_index(device: torch.device) -> torch.device:
    """The present CUDA device by its number: some of torch's calls take no other."""
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device
