"""Why a process or a service cannot start or go on, for the operator to read."""


class SettingError(Exception):
    """A setting that cannot be used; the message names it, a line for each reason."""


class ServiceError(Exception):
    """A reason to end a service of several processes."""
