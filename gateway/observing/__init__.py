"""What is shown of calls and queues: metrics, traces, logs, and the HTTP port they are read from."""
