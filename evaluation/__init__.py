"""The published quality, measured through the running service with mteb.

    protocol/    by which rules, instructions and settings: all that changes a score
    tasks/       which tasks: mteb's, and those in local folders; how much they read
    records/     what a run keeps on disk: answers, counts, the run card, and where
    service/     the running service as mteb's models
    runs/        runs tasks, and says beforehand what that will be
    summaries/   what results come to, beside others
    sweeps/      quality against bytes and speed
    commands/    the verbs of `qwen3-eval`

Each imports those above it only. `summary.py` and the two shell scripts have the authors' names and arguments.
"""
