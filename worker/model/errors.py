class CheckpointError(ValueError):
    """The checkpoint cannot be served exactly; the message names the file, the field and the reason."""
