"""The access file: what it may say, and what is told of one that says something else."""

import math
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from gateway.identity.access_file import Rpc, Rules, parse_access
from gateway.identity.api_keys import ApiKey
from gateway.identity.keys_cli import app
from jobqueue.lanes import Lane
from jobqueue.quotas import Quota
from qwen3.inference.v1 import embedding_pb2, model_pb2, rerank_pb2, tokenizer_pb2
from runtime.errors import SettingError

KEY = ApiKey.new()
KEY_TABLE = f'[tenants.a.keys.{KEY.id}]\nsha256 = "{KEY.sha256}"\n'


def parse(text: str) -> Rules:
    return parse_access(text.encode(), where="--access a.toml")


def refusal(text: str) -> str:
    with pytest.raises(SettingError) as caught:
        parse(text)
    return str(caught.value)


def test_a_tenant_may_do_everything_with_its_models_unless_told_otherwise():
    caller = parse(f'[tenants.a]\nmodels = ["m", "n"]\n{KEY_TABLE}').keys[KEY.id].caller
    assert (caller.tenant, caller.models, caller.rpcs) == ("a", {"m", "n"}, None)
    assert (caller.lanes, caller.quota, caller.is_operator) == (set(Lane), None, False)


def test_every_right_can_be_given():
    text = """
    [tenants.a]
    models = ["*"]
    rpcs = ["Embed", "ListModels"]
    priorities = ["bulk"]
    operator = true
    certificate_uris = ["spiffe://x/y", "spiffe://x/z"]
    certificate_dns_names = ["A.b"]
    quota = { requests_per_s = 0.5, tokens_per_s = 1000, max_in_flight = 3 }
    """
    rules = parse(text)
    caller = rules.uris["spiffe://x/y"]
    assert (caller.models, caller.rpcs, caller.lanes) == (None, {"Embed", "ListModels"}, {Lane.BULK})
    assert caller.is_operator
    assert caller.quota == Quota(requests_per_s=0.5, tokens_per_s=1000, max_in_flight=3)
    assert caller.credential == "uri spiffe://x/y"
    assert rules.uris.keys() == {"spiffe://x/y", "spiffe://x/z"}
    assert rules.dns_names["a.b"].credential == "dns a.b"


def test_rpcs_are_those_of_the_contract():
    files = (embedding_pb2, rerank_pb2, tokenizer_pb2, model_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    assert set(get_args(Rpc)) == {method.name for service in services for method in service.methods}


def test_a_key_lasts_until_its_expiry_or_for_ever():
    table = '[tenants.a]\nmodels = ["*"]\n' + KEY_TABLE
    assert parse(table).keys[KEY.id].expires_s == math.inf
    assert parse(f"{table}expires = 1970-01-02T01:00:00+01:00").keys[KEY.id].expires_s == 86_400


TENANT = '[tenants.a]\nmodels = ["*"]\n'
BAD = {
    "nothing": ("", "tenants: Field required"),
    "no tenants": ("[tenants]", "tenants: "),
    "no TOML": ("tenants", "is not TOML"),
    "an endless number": (f"a = {'9' * 5000}", "is not TOML"),
    "endless nesting": (f"a = {'[' * 5000}", "is not TOML"),
    "an unknown key": (TENANT + "colour = 1", "tenants.a.colour: Extra inputs"),
    "a key of no tenant": (KEY_TABLE, "tenants.a.models: Field required"),
    "no models": ("[tenants.a]\nmodels = []", "tenants.a.models: "),
    "an unknown rpc": (TENANT + 'rpcs = ["Embde"]', "tenants.a.rpcs.0: Input should be 'Embed'"),
    "no rpc": (TENANT + "rpcs = []", "tenants.a.rpcs: "),
    "an unknown priority": (TENANT + 'priorities = ["high"]', "tenants.a.priorities.0: Input should be 'interactive'"),
    "a quota of nothing": (TENANT + "quota = { max_in_flight = 0 }", "tenants.a.quota.max_in_flight: "),
    "a bad name": ('[tenants."a b"]\nmodels = ["*"]', "tenants.a b"),
    "a bad hash": (TENANT + f'keys.k.sha256 = "{KEY.secret}"', "tenants.a.keys.k.sha256: "),
    "a key for a hash": (TENANT + f'keys.k.sha256 = "{KEY.reveal()}"', "tenants.a.keys.k.sha256: "),
    "a key for an id": (TENANT + f'keys.{KEY.reveal()}.sha256 = "{KEY.sha256}"', "tenants.a.keys.q3_"),
    "a secret": (TENANT + f'keys.k = {{ secret = "{KEY.secret}" }}', "tenants.a.keys.k.secret: Extra inputs"),
    "an expiry without a zone": (TENANT + KEY_TABLE + "expires = 2030-01-01T00:00:00", "expires: "),
    "a name twice": (
        '[tenants.a]\nmodels = ["*"]\ncertificate_uris = ["x"]\n[tenants.b]\nmodels = ["*"]\ncertificate_uris = ["x"]',
        "certificate URI 'x' stands in two places",
    ),
    "a key twice": (
        TENANT + '[tenants.b]\nmodels = ["*"]\n' + KEY_TABLE + KEY_TABLE.replace("tenants.a", "tenants.b"),
        f"key '{KEY.id}' stands in two places",
    ),
}


@pytest.mark.parametrize(("text", "reason"), BAD.values(), ids=BAD)
def test_another_file_is_refused_with_key_and_reason_but_no_secret(text, reason):
    message = refusal(text)
    assert message.startswith("--access a.toml: ")
    assert reason in message
    assert KEY.secret not in message
    assert KEY.sha256 not in message


def test_all_mistakes_are_told_at_once():
    message = refusal(TENANT + 'colour = 1\nrpcs = ["x"]')
    assert "tenants.a.colour" in message
    assert "tenants.a.rpcs.0" in message


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(SettingError, match="is not TOML"):
        parse_access(b"\xff", where="--access a.toml")


def make_key(*options: str) -> tuple[ApiKey, str]:
    """What the command makes: the key, and the lines for the file."""
    made = CliRunner().invoke(app, ["new", *options])
    assert made.exit_code == 0
    return ApiKey.parse(made.stderr.split()[-1]), made.stdout


def test_the_command_makes_a_key_that_its_lines_make_known():
    key, lines = make_key("--tenant", "a")
    rules = parse('[tenants.a]\nmodels = ["*"]\n\n[tenants.b]\nmodels = ["*"]' + "\n" + lines)
    assert rules.keys[key.id].caller.tenant == "a"
    assert rules.keys[key.id].sha256 == key.sha256
    assert key.secret not in lines


def test_the_command_adds_keys_and_dates_them(tmp_path):
    (first, first_lines), (second, second_lines) = make_key("--tenant", "a"), make_key("--tenant", "a", "--days", "7")
    rules = parse(TENANT + first_lines + second_lines)
    assert rules.keys.keys() == {first.id, second.id}
    assert rules.keys[first.id].expires_s == math.inf
    assert rules.keys[second.id].expires_s < math.inf


@pytest.mark.parametrize("options", [[], ["--tenant", "a b"], ["--tenant", "a", "--days", "0"]])
def test_the_command_refuses_what_makes_no_lines(options):
    made = CliRunner().invoke(app, ["new", *options])
    assert made.exit_code == 2
    assert "q3_" not in made.output


def test_the_documented_example_is_a_good_one():
    text = Path(__file__).parents[3].joinpath("docs/security.md").read_text().split("```toml\n")[1].split("```")[0]
    rules = parse(text.replace('"..."', f'"{KEY.sha256}"'))
    assert len(rules.keys) == len(rules.uris) == len(rules.dns_names) == 1
