"""The Prometheus metrics of the engine, read from it when they are scraped."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from jobqueue.announcements import Announcement
from worker.placement import Placement
from worker.runner import ModelRunner


class RunnerCollector(Collector):
    """What the engine has counted, and what it runs on."""

    def __init__(self, runner: ModelRunner, announcement: Announcement, placement: Placement) -> None:
        self._runner = runner
        self._model = announcement.model_id
        self._info = {
            "model": announcement.model_id,
            "revision": announcement.revision,
            "device": str(placement.device),
            "dtype": placement.dtype_name,
            "engine": runner.engine,
            "attention": runner.attention,
            "kernels": runner.kernels,
        }

    def collect(self) -> Iterator[Metric]:
        stats = self._runner.stats()
        cache = stats.prefix_cache
        yield InfoMetricFamily("qwen3_worker", "What this worker serves, and with what", value=self._info)
        yield self._counter("input_tokens", "Tokens of the sequences that ran", stats.num_input_tokens)
        yield self._counter("computed_tokens", "Those that were neither shared nor cached", stats.num_computed_tokens)
        yield self._counter("prefix_cache_hits", "Prefixes found in the cache", cache.num_hits)
        yield self._counter("prefix_cache_misses", "Prefixes not found in the cache", cache.num_misses)
        yield self._counter("prefix_cache_evictions", "Prefixes let go for others", cache.num_evicted)
        size = GaugeMetricFamily("qwen3_prefix_cache_bytes", "Keys and values kept", labels=["model"])
        size.add_metric([self._model], cache.num_bytes)
        yield size

    def _counter(self, name: str, description: str, value: int) -> CounterMetricFamily:
        family = CounterMetricFamily(f"qwen3_{name}", description, labels=["model"])
        family.add_metric([self._model], value)
        return family
