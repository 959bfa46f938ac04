"""`python -m jobqueue` is `qwen3-queue`."""

from jobqueue.cli import main

if __name__ == "__main__":
    main()
