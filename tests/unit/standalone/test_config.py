import sys

import pytest

from runtime.settings import EXIT_USAGE
from standalone.config import ServeSettings
from standalone.programs import gateway_program, worker_programs


def test_the_defaults_are_the_documented_ones():
    settings = ServeSettings.from_command_line(["some/model"])
    assert settings.model_dump() == {
        "models": ["some/model"],
        "listen": "127.0.0.1:50051",
        "redis": "",
        "device": "auto",
        "dtype": "auto",
        "workers_per_model": 1,
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
    assert gateway_program(settings).command == (*python, "gateway", "--listen", "0.0.0.0:1", *level)
    programs = worker_programs(settings)
    names = ["worker 1 of a/b", "worker 2 of a/b", "worker 1 of c/d", "worker 2 of c/d"]
    assert [program.name for program in programs] == names
    options = ("--device", "cuda:1", "--dtype", "bfloat16", *level, "--device-memory-share", "0.250")
    assert programs[0].command == (*python, "worker", "a/b", *options)
    assert programs[2].command == (*python, "worker", "c/d", "--task", "rerank", *options)
