"""What was measured of one workload, how it is said, and what is asked of it."""

from dataclasses import asdict, dataclass

from benchmarks.gpu_check.flops import Flops
from benchmarks.gpu_check.report import Row
from benchmarks.gpu_check.workloads import MIXED

LEAST_MFU = {"0.6B": 0.60, "4B": 0.75, "8B": 0.75}  # where every text has 512 tokens
LEAST_SPEEDUP = 2.5  # over transformers with SDPA, padded, where texts are of mixed lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Medians of several batches. Tokens are those of the texts, whatever is computed of them; FLOPs those executed.

    `forward_ms` is the forward pass of a batch that lies on the device, `plan_ms` the host's time to lay it out, which
    the worker overlaps with the batch before. `twin_ms` is transformers' time, where it was measured.
    """

    size: str
    workload: str
    num_texts: int
    num_tokens: int
    num_computed: int
    flops: Flops
    forward_ms: float
    plan_ms: float
    twin_ms: float | None
    peak_gib: float
    peak_tflops: float

    @property
    def mfu(self) -> float:
        """FLOPs executed over what matrix products alone reached in the same run."""
        return self.flops.total / self.forward_ms / 1e9 / self.peak_tflops

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.forward_ms * 1e3

    @property
    def texts_per_s(self) -> float:
        return self.num_texts / self.forward_ms * 1e3

    @property
    def speedup(self) -> float | None:
        return None if self.twin_ms is None else self.twin_ms / self.forward_ms


def missed_target(speed: Speed) -> str:
    """The target that this workload of this size has and does not reach, or nothing."""
    least_mfu = LEAST_MFU.get(speed.size)
    if speed.workload == "512" and least_mfu is not None and speed.mfu < least_mfu:
        return f"MFU {speed.mfu:.1%} of {least_mfu:.0%}"
    if speed.workload == MIXED and speed.speedup is not None and speed.speedup < LEAST_SPEEDUP:
        return f"{speed.speedup:.2f} of {LEAST_SPEEDUP} x transformers"
    return ""


def speed_row(model_name: str, speed: Speed) -> Row:
    text = (
        f"{speed.num_texts} texts, {speed.num_tokens} tokens, {speed.num_computed} computed: "
        f"{speed.forward_ms:.4g} ms, {speed.tokens_per_s:.4g} tokens/s, {speed.texts_per_s:.4g} texts/s, "
        f"MFU {speed.mfu:.1%}, peak {speed.peak_gib:.2f} GiB, plan {speed.plan_ms:.3g} ms"
    )
    if speed.speedup is not None:
        text += f", {speed.speedup:.2f} x transformers ({speed.twin_ms:.4g} ms)"
    derived = {name: getattr(speed, name) for name in ("mfu", "tokens_per_s", "texts_per_s", "speedup")}
    return Row(
        kind="SPEED",
        name=f"{model_name}, {speed.workload}",
        text=text,
        figures={"model": model_name, **asdict(speed), **derived},
        missed=missed_target(speed),
    )
