"""Settings of any process: where they come from, and what a mistake is told like."""

import os
import tomllib
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from runtime.settings import EXIT_USAGE, CommaSeparated, HttpUrl, ListenAddress, Positional, Settings


class Sample(Settings):
    """A process's settings."""

    model_config = SettingsConfigDict(cli_prog_name="qwen3-gateway")

    secret: str = Field(description="never shown")
    num_threads: int = Field(1, ge=1, description="threads")
    verbose: bool = Field(default=False, description="say more")
    share: float = Field(0.5, description="100% at most")
    listen: ListenAddress | None = Field(None, description="HOST:PORT")
    names: CommaSeparated[list[str]] = Field([], description="names")
    kinds: CommaSeparated[frozenset[Literal["a", "b"]]] = Field(frozenset("a"), description="kinds")
    folder: Path | None = Field(None, description="a folder")
    token: SecretStr | None = Field(None, description="a secret")
    url: HttpUrl | None = Field(None, description="a URL that may have a password")

    @model_validator(mode="after")
    def _check(self) -> "Sample":
        if self.verbose and self.num_threads > 8:
            raise ValueError("--num-threads: too many to listen to")
        return self


class WithPlaces(Settings):
    """A process whose models are named by their place."""

    model_config = SettingsConfigDict(cli_prog_name="qwen3-serve")

    models: Positional[CommaSeparated[list[str]]] = Field(description="models")
    redis: str = Field("", description="a URL")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("QWEN3_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path):
    """Writes a settings file, and returns its path."""

    def write(text: str | bytes) -> str:
        path = tmp_path / "settings.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def read(*arguments: str) -> Sample:
    return Sample.from_command_line(["--secret", "s3cret", *arguments])


def refusal(capfd, *arguments: str, program=Sample) -> str:
    with pytest.raises(SystemExit) as exit_:
        program.from_command_line(list(arguments))
    assert exit_.value.code == EXIT_USAGE == 2
    out, err = capfd.readouterr()
    assert not out
    return err.strip()


def test_a_refusal_has_flag_variable_value_and_reason(capfd):
    message = refusal(capfd, "--secret", "s3cret", "--num-threads", "zero")
    assert message == (
        "--num-threads (QWEN3_NUM_THREADS) = 'zero': "
        "Input should be a valid integer, unable to parse string as an integer"
    )


def test_a_missing_setting_shows_no_value_of_others(capfd):
    assert refusal(capfd, "--num-threads", "2") == "--secret (QWEN3_SECRET): Field required"


def test_settings_that_do_not_go_together_tell_the_reason_and_no_secret(capfd):
    message = refusal(capfd, "--secret", "s3cret", "--num-threads", "9", "--verbose")
    assert message == "--num-threads: too many to listen to"


def test_a_switch_is_a_flag_alone_and_a_variable(monkeypatch):
    assert read("--verbose").verbose
    assert not read("--no-verbose").verbose
    monkeypatch.setenv("QWEN3_VERBOSE", "true")
    assert read().verbose


def test_the_settings_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        read().num_threads = 2


WAYS = [
    ("num_threads", "3", "4", "5", 3, 4, 5),
    ("verbose", "true", "false", "true", True, False, True),
    ("share", "0.25", "1", "1e300", 0.25, 1.0, 1e300),
    ("listen", '"a:1"', "b:2", "c:3", "a:1", "b:2", "c:3"),
    ("names", '["a", "b"]', "c, d", "e,f", ["a", "b"], ["c", "d"], ["e", "f"]),
    ("names", '["a,b"]', "", "x,", ["a,b"], [], ["x"]),
    ("kinds", '["b"]', "a,b", "a", {"b"}, {"a", "b"}, {"a"}),
    ("folder", '"/a"', "/b", "/c", Path("/a"), Path("/b"), Path("/c")),
]


@pytest.mark.parametrize(("name", "in_file", "variable", "flag", "first", "second", "third"), WAYS)
def test_the_file_gives_way_to_variables_and_these_to_flags(
    file, monkeypatch, name, in_file, variable, flag, first, second, third
):
    config = ("--config", file(f"[gateway]\n{name} = {in_file}\n"))
    assert getattr(read(*config), name) == first
    monkeypatch.setenv(f"QWEN3_{name.upper()}", variable)
    assert getattr(read(*config), name) == second
    word = f"--{name.replace('_', '-')}"
    assert getattr(read(*config, *([word] if flag == "true" else [word, flag])), name) == third


def test_the_file_is_named_by_a_variable_too_and_by_a_flag_rather(file, monkeypatch, tmp_path):
    monkeypatch.setenv("QWEN3_CONFIG", file("[gateway]\nnum_threads = 3\n"))
    assert read().num_threads == 3
    other = tmp_path / "other.toml"
    other.write_text("[gateway]\nnum_threads = 4\n")
    assert read("--config", str(other)).num_threads == 4
    assert read("--config", "").num_threads == 1


def test_a_file_without_a_table_for_the_program_sets_nothing(file):
    assert read("--config", file("[worker]\nanything = 1\n")).num_threads == 1


@pytest.mark.parametrize("name", ["listen", "folder", "token", "url"])
def test_an_empty_optional_setting_is_not_set_whatever_stands_before(name, file, monkeypatch):
    value = "http://a:1" if name == "url" else "a:1"
    config = ("--config", file(f'[gateway]\n{name} = "{value}"\n'))
    assert getattr(read(*config), name) is not None
    assert getattr(read(*config, f"--{name}", ""), name) is None
    monkeypatch.setenv(f"QWEN3_{name.upper()}", "")
    assert getattr(read(*config), name) is None
    monkeypatch.setenv(f"QWEN3_{name.upper()}", value)
    assert getattr(read("--config", file(f'[gateway]\n{name} = ""\n')), name) is not None


def test_a_list_may_be_given_flag_by_flag():
    assert read("--names", "a", "--names", "b,c").names == ["a", "b", "c"]


def test_what_has_a_place_on_the_command_line_may_come_from_elsewhere(file, monkeypatch, capfd):
    def models(*arguments: str) -> list[str]:
        return WithPlaces.from_command_line(list(arguments)).models

    assert refusal(capfd, program=WithPlaces) == "MODELS (QWEN3_MODELS): Field required"
    config = ("--config", file('[serve]\nmodels = ["a", "b"]\n'))
    assert models(*config) == ["a", "b"]
    monkeypatch.setenv("QWEN3_MODELS", "c,d")
    assert models(*config) == ["c", "d"]
    assert models(*config, "e", "f", "--redis", "x") == ["e", "f"]
    assert models("--redis", "x", "e") == ["e"]


def test_a_bad_value_in_the_file_is_told_with_its_key_and_file(capfd, file):
    path = file('[gateway]\nsecret = "s3cret"\nnum_threads = 0\nnames = "a"\nkinds = ["c"]\n')
    assert refusal(capfd, "--config", path).splitlines() == [
        f"{path}: [gateway] num_threads = 0: Input should be greater than or equal to 1",
        f"{path}: [gateway] kinds = 'c': Input should be 'a' or 'b'",
    ]


def test_a_bad_flag_over_a_key_of_the_file_is_told_as_a_flag(capfd, file):
    path = file("[gateway]\nnum_threads = 2\n")
    message = refusal(capfd, "--config", path, "--secret", "x", "--num-threads", "0")
    assert message.startswith("--num-threads (QWEN3_NUM_THREADS) = '0': ")


def test_an_unknown_key_is_refused_by_name_without_its_value(capfd, file):
    path = file('[gateway]\nsecrte = "s3cret"\nsecret = "x"\n')
    assert refusal(capfd, "--config", path) == f"{path}: [gateway] secrte: no such setting; is secret meant?"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[gatway]\n", "[gatway]: no such table; is gateway meant?"),
        ("[[gateway]]\n", "gateway: not a table, such as [gateway]"),
        ('redis = "redis://:s3cret@db"\n[gateway]\n', "redis: not a table, such as [gateway]"),
        ("gateway = 5\n", "gateway: not a table, such as [gateway]"),
        ('[gateway]\nconfig = "x.toml"\n', "[gateway] config: a file cannot name another one"),
        ('[worker]\nconfig = "x.toml"\n', "[worker] config: a file cannot name another one"),
    ],
)
def test_what_is_of_no_program_is_refused_by_name(capfd, file, text, reason):
    path = file(text)
    assert refusal(capfd, "--config", path) == f"{path}: {reason}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[gateway]\nsecret = \n", "not TOML: Invalid value (at line 2, column 10)"),
        ("a = " + "[" * 5000, "not TOML: maximum recursion depth exceeded"),
        (b"\xff\xfe", "not TOML: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_a_file_that_is_not_toml_is_refused(capfd, file, content, reason):
    path = file(content)
    assert refusal(capfd, "--config", path) == f"--config (QWEN3_CONFIG) = '{path}': {reason}"


def test_a_file_that_cannot_be_read_is_refused(capfd, tmp_path, monkeypatch):
    assert refusal(capfd, "--config", "/none") == "--config (QWEN3_CONFIG) = '/none': No such file or directory"
    monkeypatch.setenv("QWEN3_CONFIG", str(tmp_path))
    assert refusal(capfd) == f"--config (QWEN3_CONFIG) = '{tmp_path}': Is a directory"


def test_an_unknown_flag_is_refused_by_name_without_its_value(capfd):
    message = refusal(capfd, "--secert", "s3cret", "--secrt=s3cret", "--quiet")
    assert message.splitlines() == [
        "--secert: no such flag; is --secret meant?",
        "--secrt: no such flag; is --secret meant?",
        "--quiet: no such flag",
    ]


def test_a_word_too_many_and_a_flag_without_a_value_are_one_line(capfd):
    assert refusal(capfd, "redis://:s3cret@db") == "no such argument: redis://***@db"
    assert refusal(capfd, "--secret") == "argument --secret: expected one argument"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "ftp://u:s3cret@h"], "--url (QWEN3_URL) = 'ftp://***@h': http://HOST:PORT is expected, or https"),
        (
            ["--url", "x?password=s3cret"],
            "--url (QWEN3_URL) = 'x?password=***': http://HOST:PORT is expected, or https",
        ),
        (["--listen", "redis://u:s3/cr@et@h"], "--listen (QWEN3_LISTEN) = 'redis://***@h': HOST:PORT is expected"),
    ],
)
def test_no_password_of_a_url_is_told(capfd, arguments, message):
    assert refusal(capfd, "--secret", "x", *arguments) == message


def test_no_password_of_a_url_is_told_where_the_file_has_it_in_a_table_or_a_list(capfd, file):
    path = file('[gateway]\nsecret.url = "redis://:s3cret@db"\nlisten = ["redis://:s3cret@db"]\n')
    assert refusal(capfd, "--config", path).splitlines() == [
        f"{path}: [gateway] secret = {{'url': 'redis://***@db'}}: Input should be a valid string",
        f"{path}: [gateway] listen = ['redis://***@db']: Input should be a valid string",
    ]


def test_the_value_of_a_secret_is_not_told(capfd, file):
    path = file("[gateway]\nsecret = 'x'\ntoken = 123456\n")
    assert refusal(capfd, "--config", path) == f"{path}: [gateway] token: Input should be a valid string"


def test_a_variable_of_no_program_is_warned_about(capfd, monkeypatch):
    monkeypatch.setenv("QWEN3_REDSI", "redis://:s3cret@db")
    monkeypatch.setenv("QWEN3_OF_SOMEONE_ELSE", "1")
    assert read().num_threads == 1
    assert capfd.readouterr().err.splitlines() == [
        "QWEN3_OF_SOMEONE_ELSE is ignored: no such setting",
        "QWEN3_REDSI is ignored: no such setting; is QWEN3_REDIS meant?",
    ]


def test_variables_of_other_programs_and_of_kubernetes_are_not_warned_about(capfd, monkeypatch):
    for name in ("BULK_SHARE", "LEASE_S", "WORKERS_PER_MODEL", "TARGET", "CONFIG"):
        monkeypatch.setenv(f"QWEN3_{name}", "")
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC", "PORT", "PORT_50051_TCP_ADDR"):
        monkeypatch.setenv(f"QWEN3_GATEWAY_{name}", "10.0.0.1")
    read()
    assert not capfd.readouterr().err


def printed(capfd, *arguments: str) -> str:
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit_:
        Sample.from_command_line([*arguments, "--print-config"])
    assert not exit_.value.code
    return capfd.readouterr().out


def test_the_settings_in_use_are_printed_with_where_they_are_from(capfd, file, monkeypatch):
    monkeypatch.setenv("QWEN3_SHARE", "0.25")
    path = file('[gateway]\nsecret = "x"\nnames = ["a"]\n')
    assert printed(capfd, "--config", path, "--verbose", "--listen", "") == (
        "[gateway]\n"
        f"secret = \"x\"  # '{path}'\n"
        "num_threads = 1  # default\n"
        "verbose = true  # --verbose\n"
        "share = 0.25  # QWEN3_SHARE\n"
        "# listen is not set  # --listen\n"
        f"names = [\"a\"]  # '{path}'\n"
        'kinds = ["a"]  # default\n'
        "# folder is not set  # default\n"
        "# token is not set  # default\n"
        "# url is not set  # default\n"
    )


def test_no_secret_is_printed(capfd):
    text = printed(capfd, "--secret", "redis://u:s3cret@db/0", "--token", "s3cret", "--url", "http://s3cret@h")
    assert "s3cret" not in text
    assert '# secret = "redis://***@db/0"  # --secret, less what is secret' in text
    assert "secret" not in tomllib.loads(text)["gateway"]


def test_wrong_settings_are_refused_and_not_printed(capfd):
    assert refusal(capfd, "--print-config") == "--secret (QWEN3_SECRET): Field required"


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.fixed_dictionaries(
    {
        "secret": TEXT,
        "num_threads": st.integers(1, 10**12),
        "share": st.floats(allow_nan=False, allow_infinity=False),
        "names": st.lists(TEXT),
        "kinds": st.frozensets(st.sampled_from("ab")),
        "folder": st.none() | TEXT.filter(bool).map(Path),
        "listen": st.none() | st.integers(0, 65535).map("h:{}".format),
    }
)


@given(VALUES)
@example({"secret": '"\\\x7f\x1f\n#\u2028é𝄞', "names": ['"', "\\u0000", "\x7f"], "share": 1e300})
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_printed_can_be_given_back(capfd, tmp_path, values):
    capfd.readouterr()
    first = Sample(**values)
    if "://" in first.secret or "password=" in first.secret:
        return
    path = tmp_path / "printed.toml"
    path.write_bytes(as_file(first).encode())
    again = Sample.from_command_line(["--config", str(path)])
    assert again.model_dump(exclude={"config"}) == first.model_dump(exclude={"config"})


def as_file(settings: Sample) -> str:
    from runtime.settings_sources import Sources  # noqa: PLC0415 - used here only

    return Sources.read(Sample, {}).as_toml(settings)


def test_help_tells_defaults_choices_and_the_other_ways(capfd):
    with pytest.raises(SystemExit) as exit_:
        Sample.from_command_line(["--help"])
    assert not exit_.value.code
    text = " ".join(capfd.readouterr().out.split())
    assert "--num-threads INTEGER threads (default: 1)" in text
    assert "--verbose, --no-verbose say more (default: false)" in text
    assert "--share NUMBER 100% at most (default: 0.5)" in text
    assert "--kinds {a,b},... kinds (default: a)" in text
    assert "--listen TEXT HOST:PORT (not set by default)" in text
    assert "--folder PATH a folder (not set by default)" in text
    assert "--secret TEXT never shown (required)" in text
    assert "--print-config" in text
    assert "table [gateway]" in text
