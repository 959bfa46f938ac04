"""redis-py's Cluster clients, where they do not do what the other clients do."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import redis
import redis.asyncio

UNKNOWN_NODE = "redirected to a node that is not known yet"


class LateCluster:
    """A blocking Cluster client that connects with its first command, as other clients do; redis-py's does when made.

    It has that one's methods.
    """

    def __init__(self, build: "Callable[[], redis.RedisCluster]") -> None:
        self._build = build
        self._lock = threading.Lock()
        self._cluster: redis.RedisCluster | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected(), name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.close()

    def forget_connections(self) -> None:
        """Learn the topology anew, where one was learnt before. Raises where no node answers."""
        if self._cluster is not None:
            _remember_given_nodes(self._cluster)
            self._cluster.nodes_manager.initialize()

    def _connected(self) -> "redis.RedisCluster":
        with self._lock:
            if self._cluster is None:
                self._cluster = self._build()
            return self._cluster


class Cluster(redis.RedisCluster):
    """Says that a redirection cannot be followed, instead of failing on it."""

    def get_node(self, host: Any = None, port: Any = None, node_name: Any = None) -> Any:
        find: Any = super().get_node
        return _found(find(host, port, node_name))


class AsyncCluster(redis.asyncio.RedisCluster):
    """Connects with its first command, and closes what it has opened also after an error."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await super().aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")

    def get_node(self, host: Any = None, port: Any = None, node_name: Any = None) -> Any:
        return _found(super().get_node(host, port, node_name))

    async def forget_connections(self) -> None:
        """Open new connections from now on, and learn the topology anew. Raises where no node answers."""
        for node in self.get_nodes():
            node.update_active_connections_for_reconnect()
            await node.disconnect_free_connections()
        _remember_given_nodes(self)
        await self.nodes_manager.initialize()


def _remember_given_nodes(client: Any) -> None:
    """The URL's nodes are asked too: redis-py forgets them for those that it finds, which may all have moved since."""
    manager = client.nodes_manager
    manager.startup_nodes = {node.name: node for node in client.startup_nodes} | manager.startup_nodes


def _found(node: Any) -> Any:
    if node is None:
        raise redis.ConnectionError(UNKNOWN_NODE)
    return node
