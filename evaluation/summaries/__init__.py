"""What results come to.

- `results`: reads them
- `expected`: the tasks that belong to them
- `summary`: means, and what is missing
- `published`, `against`: what they are held against
- `gate`: whether a rollout may go on
- `tables`, `export`, `plot`: how it is shown
"""
