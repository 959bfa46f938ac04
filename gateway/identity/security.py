"""From the settings to who may connect and call; what files say about it is read anew when they change."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from gateway.config import GatewaySettings
from gateway.identity.access import AccessControl, Identify, identify_nobody
from gateway.identity.access_file import parse_access
from gateway.identity.reloading import FollowedFiles
from gateway.identity.tls import ServerTls

RELOAD_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """`credentials` None: no TLS."""

    identify: Identify
    credentials: grpc.ServerCredentials | None
    files: Sequence[FollowedFiles]

    async def follow(self) -> None:
        """Take changes of the files into use, for ever."""
        while True:
            await asyncio.sleep(RELOAD_S)
            for files in self.files:
                await asyncio.to_thread(files.refresh)


def secure(settings: GatewaySettings) -> Security:
    """Raises SettingError for a file that says nothing usable."""
    files: list[FollowedFiles] = []
    return Security(identify=_identify(settings, files), credentials=_credentials(settings, files), files=files)


def _identify(settings: GatewaySettings, files: list[FollowedFiles]) -> Identify:
    """Adds the access file to `files`; in the environment nothing can change."""
    control = AccessControl(open_services=settings.open_services)
    if settings.access_toml:
        text = settings.access_toml.get_secret_value()
        control.replace(parse_access(text.encode(), where="--access-toml"))
    elif settings.access:
        where = f"--access {settings.access}"
        apply = lambda contents: control.replace(parse_access(contents[0], where=where))  # noqa: E731 - one line
        files.append(FollowedFiles([settings.access], apply))
    else:
        return identify_nobody
    return control.identify


def _credentials(settings: GatewaySettings, files: list[FollowedFiles]) -> grpc.ServerCredentials | None:
    """Adds the certificates to `files`."""
    if not settings.tls_cert or not settings.tls_key:
        return None
    tls = ServerTls(cert=settings.tls_cert, key=settings.tls_key, client_ca=settings.tls_client_ca)
    files.append(FollowedFiles(tls.paths, tls.apply))
    return tls.credentials()
