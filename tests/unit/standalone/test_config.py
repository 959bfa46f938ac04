import subprocess
import sys

import pytest

from gateway.config import GatewaySettings
from runtime.children import Program
from runtime.settings import EXIT_USAGE
from standalone.config import ServeSettings
from standalone.programs import environment, gateway_program, worker_programs
from worker.config import WorkerSettings


def test_the_defaults_are_the_documented_ones():
    settings = ServeSettings.from_command_line(["some/model"])
    assert settings.model_dump() == {
        "config": None,
        "models": ["some/model"],
        "listen": "127.0.0.1:50051",
        "insecure": False,
        "redis": "",
        "device": "auto",
        "dtype": "auto",
        "workers_per_model": 1,
        "http_listen": None,
        "stop_limit_s": 90.0,
        "log_level": "info",
    }


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["a/b", "--listen", "50051"], "HOST:PORT is expected"),
        (["a/b", "--device", "gpu"], "--device"),
        (["a/b", "--dtype", "int8"], "--dtype"),
        (["a/b", "--workers-per-model", "0"], "--workers-per-model"),
        (["embed:a/b"], "'embed' in 'embed:a/b' is not a task"),
        (["a/b", "rerank:a/b"], "named twice"),
    ],
)
def test_a_bad_setting_ends_the_process_with_its_name(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        ServeSettings.from_command_line(arguments)
    assert ended.value.code == EXIT_USAGE
    assert complaint in capsys.readouterr().err


def test_the_children_get_what_concerns_them():
    flags = ["--listen", "0.0.0.0:1", "--device", "cuda:1", "--dtype", "bfloat16", "--workers-per-model", "2"]
    settings = ServeSettings.from_command_line(["a/b", "rerank:c/d", *flags, "--log-level", "warning"])
    python, level = (sys.executable, "-m"), ("--log-level", "warning")
    models = ("--await-models", "a/b,c/d")
    assert gateway_program(settings).command == (*python, "gateway", "--listen", "0.0.0.0:1", *models, *level)
    programs = worker_programs(settings)
    names = ["worker 1 of a/b", "worker 2 of a/b", "worker 1 of c/d", "worker 2 of c/d"]
    assert [program.name for program in programs] == names
    options = ("--device", "cuda:1", "--dtype", "bfloat16", *level, "--device-memory-share", "0.250")
    assert programs[0].command == (*python, "worker", "a/b", *options)
    assert programs[2].command == (*python, "worker", "c/d", "--task", "rerank", *options)


@pytest.mark.parametrize(
    ("address", "ports"),
    [("0.0.0.0:9100", [9100, 9101, 9102, 9103]), ("[::1]:9100", [9100, 9101, 9102, 9103]), ("[::1]:0", [0, 0, 0, 0])],
)
def test_every_child_has_a_port_of_its_own_for_http(address, ports):
    settings = ServeSettings.from_command_line(["a/b", "c/d", "e/f", "--http-listen", address])
    programs = [gateway_program(settings), *worker_programs(settings)]
    host = address.rpartition(":")[0]
    assert [program.command[-2:] for program in programs] == [("--http-listen", f"{host}:{port}") for port in ports]


@pytest.fixture
def variables_for(monkeypatch):
    """Gives this process the environment of a child of `settings`."""

    def give(settings: ServeSettings) -> None:
        for name, value in environment(settings).items():
            monkeypatch.setenv(name, value)

    return give


def arguments_of(program: Program) -> list[str]:
    """What stands behind `python -m worker`."""
    return list(program.command[3:])


def test_the_children_read_their_tables_of_the_file_that_a_flag_names(tmp_path, monkeypatch, variables_for):
    file, other = tmp_path / "settings.toml", tmp_path / "other.toml"
    file.write_text('[gateway]\nbulk_share = 0.5\n[worker]\nlease_s = 7\n[serve]\nmodels = ["a/b"]\n')
    other.write_text("[worker]\nlease_s = 8\n")
    monkeypatch.setenv("QWEN3_CONFIG", str(other))
    monkeypatch.setenv("QWEN3_REDIS", "redis://db")
    settings = ServeSettings.from_command_line(["--config", str(file)])
    variables_for(settings)
    assert settings.models == ["a/b"]
    assert GatewaySettings.from_command_line(arguments_of(gateway_program(settings))).bulk_share == 0.5
    assert WorkerSettings.from_command_line(arguments_of(worker_programs(settings)[0])).lease_s == 7


def test_what_the_service_sets_for_its_children_wins_over_file_and_variables(tmp_path, monkeypatch, variables_for):
    file = tmp_path / "settings.toml"
    of_one_model = 'model = "x"\nname = "x"\nrevision = "x"\ntask = "rerank"\n'
    file.write_text(
        '[gateway]\nlisten = "a:1"\nlog_level = "debug"\n'
        f'[worker]\n{of_one_model}device = "cuda"\nlog_level = "debug"\n'
    )
    for name in ("MODEL", "NAME", "REVISION"):
        monkeypatch.setenv(f"QWEN3_{name}", "y")
    monkeypatch.setenv("QWEN3_REDIS", "redis://db")
    settings = ServeSettings.from_command_line(["a/b", "rerank:c/d", "--config", str(file), "--device", "cpu"])
    variables_for(settings)
    gateway = GatewaySettings.from_command_line(arguments_of(gateway_program(settings)))
    assert (gateway.listen, gateway.log_level) == ("127.0.0.1:50051", "info")
    workers = [WorkerSettings.from_command_line(arguments_of(program)) for program in worker_programs(settings)]
    assert [(worker.model, worker.task) for worker in workers] == [("a/b", None), ("c/d", "rerank")]
    for worker in workers:
        assert (worker.name, worker.revision, worker.device, worker.log_level) == (None, None, "cpu", "info")


def test_a_mistake_in_a_childs_table_ends_the_service_with_its_reason(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("[gateway]\nbulk_share = 3\n")
    command = [sys.executable, "-m", "standalone", "a/b", "--config", str(file), "--listen", "127.0.0.1:0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"{file}: [gateway] bulk_share = 3: Input should be less than or equal to 1" in ended.stderr
