"""`python -m benchmarks.gpu_check`: are the back-ends of this machine right, and how fast are they."""
