"""Callers that call all the time, as a client does that follows docs/operations.md."""

import threading
from collections import Counter
from typing import Self

import grpc

from qwen3.inference.v1 import embedding_pb2, embedding_pb2_grpc
from qwen3_client.channel import channel_options
from tests.support.echo import eventually
from tests.support.wire import TIMEOUT_S

PAUSE_S = 0.02  # of a caller between its calls: gateways that start meanwhile need the processor too


def open_channel(target: str) -> grpc.Channel:
    """With connections of its own, where grpc would share those of equal channels."""
    return grpc.insecure_channel(target, options=[*channel_options(target), ("grpc.use_local_subchannel_pool", 1)])


class Load:
    """A context manager: calls are made inside. `codes` counts what became of them."""

    def __init__(self, target: str, *, num_channels: int = 4, callers_per_channel: int = 2) -> None:
        self.codes: Counter[str] = Counter()
        self._channels = [open_channel(target) for _ in range(num_channels)]
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._call_on, args=(channel,))
            for channel in self._channels
            for _ in range(callers_per_channel)
        ]

    def more(self, number: int = 100) -> None:
        """Come back once that many more calls have succeeded."""
        goal = self.codes["OK"] + number
        eventually(lambda: self.codes["OK"] >= goal)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for channel in self._channels:
            channel.close()

    def _call_on(self, channel: grpc.Channel) -> None:
        embed = embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed
        while not self._stopping.wait(PAUSE_S):
            try:
                embed(embedding_pb2.EmbedRequest(inputs=["text"]), timeout=TIMEOUT_S)
                self.codes["OK"] += 1
            except grpc.RpcError as error:
                self.codes[f"{error.code().name}: {error.details()}"] += 1
