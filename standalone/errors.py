"""Why the service as a whole cannot start or go on."""


class ServiceError(Exception):
    """A reason to end the service, for the operator to read."""
