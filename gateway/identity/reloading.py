"""Files that are read anew when they change. What they say is used only once it is found good."""

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from runtime.errors import SettingError

Apply = Callable[[Sequence[bytes]], None]
"""Takes the contents of all files into use, or raises SettingError and changes nothing."""

log = structlog.get_logger()


class FollowedFiles:
    """Files that mean something together, such as a certificate and its key."""

    def __init__(self, paths: Sequence[Path], apply: Apply) -> None:
        """Raises SettingError."""
        self._paths = paths
        self._apply = apply
        contents = self._read()
        apply(contents)
        self._seen: Sequence[bytes] | str = contents  # or why they could not be read

    def refresh(self) -> None:
        """Take a change into use. A bad one is told once, and what was there before stays until it is mended."""
        seen, self._seen = self._seen, self._look()
        if self._seen == seen:
            return
        try:
            self._take(self._seen)
        except SettingError as error:
            # Without the traceback, which would only lead here.
            log.error("changed files cannot be used; what was read before stays", error=str(error))  # noqa: TRY400
        else:
            log.info("changed files are in use", files=[str(path) for path in self._paths])

    def _look(self) -> Sequence[bytes] | str:
        try:
            return self._read()
        except SettingError as error:
            return str(error)

    def _take(self, seen: Sequence[bytes] | str) -> None:
        if isinstance(seen, str):
            raise SettingError(seen)
        self._apply(seen)

    def _read(self) -> Sequence[bytes]:
        # Contents, since times are too coarse for two changes within a moment, and secrets are mounted as links.
        try:
            return [path.read_bytes() for path in self._paths]
        except OSError as error:
            raise SettingError(f"{error.filename}: {error.strerror}") from error
