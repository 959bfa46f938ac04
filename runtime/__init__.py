"""What every process of the service does the same way: settings, logs, stopping, children."""
