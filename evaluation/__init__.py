"""The published quality, measured through the running service with mteb."""
