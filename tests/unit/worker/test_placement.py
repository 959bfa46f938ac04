import pytest
import torch

from runtime.errors import SettingError
from worker.placement import Placement


@pytest.fixture
def second_device(monkeypatch):
    """A machine whose present CUDA device is its second."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_a_cuda_device_has_its_number_and_bfloat16(device, second_device):
    placement = Placement.choose(device, "auto")
    assert placement.device == torch.device("cuda", 1)
    assert (placement.dtype_name, placement.dtype) == ("bfloat16", torch.bfloat16)


def test_a_device_that_is_named_is_used(second_device):
    assert Placement.choose("cuda:0", "float16").device == torch.device("cuda", 0)
    assert Placement.choose("cpu", "auto") == Placement(device=torch.device("cpu"), dtype_name="float32")


def test_a_machine_without_cuda_computes_on_the_cpu_or_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Placement.choose("auto", "auto").device == torch.device("cpu")
    with pytest.raises(SettingError, match="--device cuda:1: this machine has no CUDA device"):
        Placement.choose("cuda:1", "auto")
