"""What the metrics of all programs have in common: their registries, and which build it is that shows them."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where processes of one port keep what they count; the library's own name


class BuildInfo(Collector):
    """Which release this is, as qwen3_build_info."""

    def collect(self) -> Iterator[Metric]:
        value = {"version": _version(), "python": platform.python_version()}
        yield InfoMetricFamily("qwen3_build", "The release, and the Python it runs on", value=value)


def new_registry() -> CollectorRegistry:
    """For metrics that are to be counted into."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asked for
    return CollectorRegistry()


def shown_registry(counted: CollectorRegistry) -> CollectorRegistry:
    """What a scrape shows: `counted`, or where several processes share a port the sum of what they have counted.

    Collectors that are registered with it are shown as they are, so they must say the same in each of the processes.
    """
    shown = counted
    if os.environ.get(SHARED_FOLDER):
        shown = CollectorRegistry()
        MultiProcessCollector(shown)  # type: ignore[no-untyped-call]  # the library's
    shown.register(BuildInfo())
    return shown


def _version() -> str:
    try:
        return version("qwen3-serve")
    except PackageNotFoundError:  # run from a checkout that nobody has installed
        return "unknown"
