"""gRPC calls made by nghttp2's h2load, a compiled client that costs little beside what it measures."""

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FIGURES = {
    "succeeded": re.compile(r"(\d+) succeeded"),
    "seconds": re.compile(r"finished in ([\d.]+)(ms|s|us)?"),
    "data": re.compile(r"traffic:.*\((\d+)\) data"),
}
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, None: 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Calls that all send the same messages. `in_flight` calls at once on each connection."""

    method: str  # /package.Service/Method
    messages: Sequence[bytes]
    num_calls: int
    num_connections: int
    in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`data_bytes` came back; h2load does not look into trailers, so only they tell answers from errors."""

    seconds: float
    data_bytes: int


def run(load: Load, address: str, headers: Mapping[str, str]) -> Outcome:
    """Raises RuntimeError where h2load is missing or calls did not come through."""
    program = shutil.which("h2load")
    if program is None:
        raise RuntimeError("h2load is not on PATH: install nghttp2-client")
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"".join(struct.pack(">BI", 0, len(message)) + message for message in load.messages))
        body.flush()
        command = [program, f"-n{load.num_calls}", f"-c{load.num_connections}", f"-m{load.in_flight}", "-d", body.name]
        fields = {"content-type": "application/grpc", "te": "trailers", **headers}
        named = [f"-H{name}: {value}" for name, value in fields.items()]
        command += [*named, f"http://{address}{load.method}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - h2load
    return _read(output, load)


def _read(output: str, load: Load) -> Outcome:
    found = {name: pattern.search(output) for name, pattern in _FIGURES.items()}
    succeeded, seconds, data = found["succeeded"], found["seconds"], found["data"]
    if not (succeeded and seconds and data) or int(succeeded[1]) != load.num_calls:
        raise RuntimeError(f"h2load's calls did not all come through:\n{output}")
    return Outcome(seconds=float(seconds[1]) * _UNITS[seconds[2]], data_bytes=int(data[1]))
