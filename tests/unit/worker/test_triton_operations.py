"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled for the GPUs that they are for."""

import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from tempfile import NamedTemporaryFile

import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from worker.model.operations import TORCH, Operations
from worker.model.triton_operations import TRITON

EPS = 1e-6
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
ARCHITECTURES = (80, 90, 100)
PUBLISHED_SHAPES = {"0.6B": (1024, 16, 3072), "4B": (2560, 32, 9728), "8B": (4096, 32, 12288)}

EXAMPLES = settings(max_examples=40, deadline=None)
NUM_TOKENS = st.sampled_from((0, 1, 2, 7))
WIDTHS = st.sampled_from((2, 64, 130, 1024, 2560))


class Random:
    """Normal tensors of one dtype."""

    def __init__(self, dtype: torch.dtype, scale: float = 1.0, seed: int = 0) -> None:
        self._dtype = dtype
        self._scale = scale
        self._generator = torch.Generator().manual_seed(seed)

    def values(self, *shape: int) -> Tensor:
        return self._normal(*shape).mul(self._scale).to(self._dtype)

    def weight(self, *shape: int) -> Tensor:
        return self._normal(*shape).to(self._dtype)

    def cos_and_sin(self, *shape: int) -> tuple[Tensor, Tensor]:
        angles = self._normal(*shape) * 1000
        return angles.cos(), angles.sin()

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)


RANDOM = st.builds(
    Random,
    # float16 stands for bfloat16 where roundings are compared: the interpreter truncates to bfloat16.
    dtype=st.sampled_from((torch.float32, torch.float16)),
    scale=st.sampled_from((1e-3, 1.0, 30.0)),  # at 1e-3 the mean of squares is as small as eps
    seed=st.integers(0, 2**32),
)


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Operations]:
    """TRITON in a process of its own, for Triton reads once, as it is imported, whether to interpret."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as child:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("TRITON_INTERPRET", "1")
            child.submit(abs, 0).result()  # starts it

        def there(function: Callable) -> Callable:
            return lambda *arguments: child.submit(function, *arguments).result()

        names = ("add_norm", "norm_rotate", "silu_mul")
        yield replace(TRITON, **{name: there(getattr(TRITON, name)) for name in names})


@EXAMPLES
@given(RANDOM, NUM_TOKENS, WIDTHS)
def test_add_norm_is_torchs_and_norms_the_rounded_sum(interpreted, random, num_tokens, width):
    arguments = random.values(num_tokens, width), random.values(num_tokens, width), random.weight(width), EPS
    total, normed = interpreted.add_norm(*arguments)
    expected_total, expected_normed = TORCH.add_norm(*arguments)
    assert torch.equal(total, expected_total)
    assert_same(normed, expected_normed)


@EXAMPLES
@given(RANDOM, NUM_TOKENS, st.sampled_from((1, 3, 8, 33)), st.sampled_from((2, 24, 64, 128, 256)))
def test_norm_rotate_is_torchs_on_heads_within_wider_rows(interpreted, random, num_tokens, num_heads, head_dim):
    heads = random.values(num_tokens, num_heads + 3, head_dim)[:, 2:-1]
    arguments = heads, random.weight(head_dim), *random.cos_and_sin(num_tokens, head_dim // 2), EPS
    rotated = interpreted.norm_rotate(*arguments)
    assert rotated.is_contiguous()
    assert_same(rotated, TORCH.norm_rotate(*arguments))


@EXAMPLES
@given(RANDOM, NUM_TOKENS, st.sampled_from((1, 60, 1024, 3000)))
def test_silu_mul_is_torchs(interpreted, random, num_tokens, width):
    gate_up = random.values(num_tokens, 2 * width)
    assert_same(interpreted.silu_mul(gate_up), TORCH.silu_mul(gate_up))


def test_matrices_in_another_order_are_read_right(interpreted):
    random = Random(torch.float32)
    values, delta, weight = random.values(64, 5).T, random.values(64, 5).T, random.weight(64)
    assert_same(interpreted.add_norm(values, delta, weight, EPS)[1], TORCH.add_norm(values, delta, weight, EPS)[1])
    assert_same(interpreted.silu_mul(values), TORCH.silu_mul(values))


def test_bfloat16_is_torchs_within_what_the_interpreter_truncates(interpreted):
    random = Random(torch.bfloat16)
    values, delta, weight = random.values(3, 2560), random.values(3, 2560), random.weight(2560)
    rotation = values.view(3, 20, 128), random.weight(128), *random.cos_and_sin(3, 64), EPS
    for operation, arguments in {
        "add_norm": (values, delta, weight, EPS),
        "norm_rotate": rotation,
        "silu_mul": (values,),
    }.items():
        ours, theirs = (getattr(operations, operation)(*arguments) for operations in (interpreted, TORCH))
        torch.testing.assert_close(ours, theirs, rtol=2**-6, atol=2**-6)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Equal but for float32's last bits, which in a smaller dtype turn a rounding now and then."""
    if ours.dtype is torch.float32:
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-5)
    else:
        torch.testing.assert_close(ours, theirs, rtol=2**-9, atol=2**-6)
        assert (ours != theirs).sum() <= 2 + ours.numel() // 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What the assembler made of one launch."""

    kernel: str
    ptx: str
    num_registers: int
    num_spilled_bytes: int


@pytest.fixture
def compile_launches(monkeypatch, tmp_path) -> Callable[..., list[Compiled]]:
    """Each operation's launch for a dtype, model shape and architecture: compiled, with its options, and not run."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def compile_all(dtype: torch.dtype, shape: tuple[int, int, int], architecture: int) -> list[Compiled]:
        made = []

        def compile_instead(kernel, *arguments, grid, warmup, **named):
            made.append(compiled(kernel, dict(zip(kernel.arg_names, arguments, strict=False)) | named, architecture))

        with monkeypatch.context() as patch:
            patch.setattr(JITFunction, "run", compile_instead)
            launch_all(dtype, *shape)
        return made

    return compile_all


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_without_spills(compile_launches, architecture):
    made = compile_launches(torch.bfloat16, PUBLISHED_SHAPES["8B"], architecture)
    assert [one.kernel for one in made] == ["_add_norm_kernel", "_norm_rotate_kernel", "_silu_mul_kernel"]
    for one in made:
        assert one.num_spilled_bytes == 0
        assert one.num_registers <= 64, "fewer than half of a multiprocessor's threads would fit"


def test_compiled_kernels_load_sixteen_bytes_at_once_and_round_to_nearest(compile_launches):
    for one in compile_launches(torch.bfloat16, PUBLISHED_SHAPES["4B"], 90):
        assert re.search(r"ld\.global\S*\.v4\.b32", one.ptx)
        assert set(re.findall(r"cvt\.(r\w+)\.bf16", one.ptx)) == {"rn"}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", TYPES, ids=TYPES.values())
@pytest.mark.parametrize("shape", PUBLISHED_SHAPES.values(), ids=PUBLISHED_SHAPES)
def test_kernels_of_every_published_model_compile_without_spills(compile_launches, dtype, shape, architecture):
    for one in compile_launches(dtype, shape, architecture):
        print(f"sm_{architecture} {TYPES[dtype]} {shape} {one.kernel}: {one.num_registers} registers")
        assert one.num_spilled_bytes == 0
        assert one.num_registers <= 64


def launch_all(dtype: torch.dtype, hidden_size: int, num_heads: int, intermediate_size: int) -> None:
    """Every operation on one token of a model, its heads a part of wider rows."""
    empty = partial(torch.empty, dtype=dtype)
    angles = torch.empty(1, 64)
    TRITON.add_norm(empty(1, hidden_size), empty(1, hidden_size), empty(hidden_size), EPS)
    TRITON.norm_rotate(empty(1, num_heads + 16, 128)[:, :num_heads], empty(128), angles, angles, EPS)
    TRITON.silu_mul(empty(1, 2 * intermediate_size))


def compiled(kernel: JITFunction, named: dict, architecture: int) -> Compiled:
    """Specialised as Triton's own launcher does it: None is a constant, addresses and sizes are multiples of 16."""
    options = {name: value for name, value in named.items() if name not in kernel.arg_names}
    types = {param.name: "constexpr" if param.is_constexpr else type_of(named[param.name]) for param in kernel.params}
    source = ASTSource(
        fn=kernel,
        signature=types,
        constexprs={name: named[name] for name, its_type in types.items() if its_type == "constexpr"},
        attrs={
            (index,): [["tt.divisibility", 16]]
            for index, (name, its_type) in enumerate(types.items())
            if its_type.startswith("*") or (its_type == "i32" and named[name] % 16 == 0)
        },
    )
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options).asm
    num_registers, num_spilled_bytes = resources(made["cubin"])
    return Compiled(
        kernel=kernel.__name__, ptx=made["ptx"], num_registers=num_registers, num_spilled_bytes=num_spilled_bytes
    )


def type_of(value: Tensor | float | None) -> str:
    if isinstance(value, Tensor):
        return TYPES[value.dtype]
    return {int: "i32", float: "fp32", type(None): "constexpr"}[type(value)]


def resources(cubin: bytes) -> tuple[int, int]:
    """A thread's registers, and its bytes of local memory, which nothing but spills would use here."""
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    registers, stack, local = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))
    return registers, stack + local
