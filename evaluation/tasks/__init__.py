"""Which tasks are evaluated.

- `benchmarks`: mteb's, by benchmark or by name
- `local_data`, `local_tasks`: a team's own, from folders
- `choosing`: what a command line names of both
- `facts`: what of a task is scored, and how
- `sizes`: how much it reads
"""
