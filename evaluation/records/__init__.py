"""What a run keeps on disk.

- `folders`: where
- `rows`: answers of tasks under way
- `locks`: one run at a time
- `counting`: what was read and sent
- `card`: with what scores were made
"""
