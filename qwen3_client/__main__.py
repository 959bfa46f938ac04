"""`python -m qwen3_client`, the same as `qwen3`."""

from qwen3_client.cli import app

if __name__ == "__main__":
    app(prog_name="qwen3")
