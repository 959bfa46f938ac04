"""Who calls, and what the caller may do and use."""

from dataclasses import dataclass

from jobqueue.lanes import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a tenant may use, at all gateways together. None: no limit."""

    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    max_in_flight: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever makes a call. `tenant` is empty where the gateway asks nobody who he is. None: no limit."""

    tenant: str = ""
    models: frozenset[str] | None = None
    methods: frozenset[str] | None = None  # as "Embed", without the service
    lanes: frozenset[Lane] = frozenset(Lane)
    quota: Quota | None = None

    def may_use(self, model_id: str) -> bool:
        return self.models is None or model_id in self.models

    def may_call(self, method: str) -> bool:
        return self.methods is None or method in self.methods


ANYBODY = Caller()
