"""What a process tells over HTTP, as probes and Prometheus ask for it."""

import json
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.support.echo import eventually
from tests.support.processes import Process

TIMEOUT_S = 20.0


def http_address(process: Process) -> str:
    """Where it said that it answers."""
    eventually(lambda: _addresses(process))
    return _addresses(process)[0]


def get(address: str, path: str) -> tuple[int, str]:
    """Status and text."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=TIMEOUT_S) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Scrape:
    """All samples of one moment."""

    def __init__(self, address: str) -> None:
        status, self.text = get(address, "/metrics")
        assert status == 200
        families = text_string_to_metric_families(self.text)
        self._samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with at least these labels; 0 where there is none."""
        found = [sample for sample in self._samples if sample.name == name]
        return sum(sample.value for sample in found if labels.items() <= sample.labels.items())


def _addresses(process: Process) -> list[str]:
    lines = [json.loads(line) for line in process.log.splitlines() if line.startswith("{") and line.endswith("}")]
    return [line["address"] for line in lines if line["event"] == "http"]
