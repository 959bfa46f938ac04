class SettingError(Exception):
    """A setting that cannot be used here, found out after the settings were read; the message names it."""
