"""Other libraries on the same token ids: a process each, since they need environments of their own.

    python -m benchmarks.peers.NAME CHECKPOINT WORKLOADS_JSON DTYPE [options]

is run in the root of the repository with the Python of the library's environment. Nothing here imports our packages.
"""
