"""Who calls, and what the caller may do and use."""

from dataclasses import dataclass

from jobqueue.lanes import Lane
from jobqueue.quotas import Quota

EVERY_MODEL = "*"  # wherever models are named


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever makes a call. `tenant` is empty where the gateway asks nobody who he is. None: no limit.

    `credential` says by what the caller is known, for the log: `key 0a1b2c3d4e`, `uri spiffe://...`, `dns a.b`.
    """

    tenant: str = ""
    credential: str = ""
    models: frozenset[str] | None = None
    rpcs: frozenset[str] | None = None  # as "Embed", without the service
    lanes: frozenset[Lane] = frozenset(Lane)
    is_operator: bool = False
    quota: Quota | None = None

    def may_use(self, model_id: str) -> bool:
        return self.models is None or model_id in self.models

    def may_call(self, rpc: str) -> bool:
        return self.rpcs is None or rpc in self.rpcs


ANYBODY = Caller(is_operator=True)
