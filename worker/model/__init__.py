"""A Qwen3 checkpoint, read and checked, and its packed forward pass."""
