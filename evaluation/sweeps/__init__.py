"""Quality against bytes and speed.

- `choices`: what is tried
- `sweep`: passes and their rows
- `services`: what is compared, as a command line names it
- `derived`: vectors of every row from one pass, and the proof that they are the service's
- `report`, `plot`: how it is shown
"""
