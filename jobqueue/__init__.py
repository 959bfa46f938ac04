"""The private contract between gateway and workers: jobs through Redis Streams, at least once, nothing lost.

`keys` names everything in Redis; `messages` is what travels; `scripts` are the atomic steps; `producer` is the
gateway's end (asyncio; a `channel` per queue) and `consumer` the worker's (threads); `announcements` is how workers
make models known; `connection` is Redis by URL; `operator` and `cli` are `qwen3-queue`.
"""
