"""`qwen3-queue`: what it says, where, and its exit status. As a process where a terminal or a signal counts."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from jobqueue.cli import app
from jobqueue.keys import MODELS
from jobqueue.lanes import Lane
from jobqueue.messages import Failure, FailureReason, decode_job
from tests.support.queues import WorkerDouble, own_queue, wait_for
from tests.support.redis_servers import embedded_binary, redis_server

PASSWORD = "s3cret-pass"
LIMIT_S = 60


@pytest.fixture(scope="module")
def url():
    with redis_server(embedded_binary()) as url:
        yield url


@pytest.fixture
def queue(url):
    """A queue of its own, the only one announced."""
    with own_queue(url) as queue:
        queue.client.delete(MODELS)
        queue.client.hset(MODELS, queue.name, "{}")
        yield queue


@pytest.fixture
def run(url):
    def run(*arguments, redis=url):
        return CliRunner().invoke(app, arguments, env={"QWEN3_REDIS": redis}, catch_exceptions=False)

    return run


@pytest.fixture
def typed(url):
    """Run with a terminal at which `answer` is typed; the exit status, and all that the terminal showed."""

    def typed(answer, *arguments):
        ours, theirs = pty.openpty()
        os.write(ours, answer.encode() + b"\n")
        command = [sys.executable, "-m", "jobqueue", *arguments]
        env = os.environ | {"QWEN3_REDIS": url}
        with subprocess.Popen(
            command, env=env, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child:
            shown = child.communicate(timeout=LIMIT_S)[0].decode()
        os.close(theirs)
        os.close(ours)
        return child.returncode, shown

    return typed


def done(result) -> str:
    """What a command that went well printed."""
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refused(result, exit_status=1) -> str:
    """The one line of a command that was refused."""
    assert (result.exit_code, result.stdout) == (exit_status, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("qwen3-queue: ")
    return line


def bury(queue, size, *, request_id="req") -> str:
    """A job that three workers died of; its letter's id."""
    reaper = queue.consumer("reaper")
    queue.admit(size, request_id=request_id)
    for _ in range(3):
        assert queue.dead_consumer("dead").take(budget=10**6, num_held=0).jobs
        reaper.reap()
    reaper.take(budget=10**6, num_held=0)
    reaper.leave()
    (letter_id, _), *_ = queue.client.xrevrange(queue.keys.dead)
    return letter_id.decode()


def is_stopped(queue, how):
    return queue.client.hget(queue.keys.control, how) == b"1"


# Status


def test_status_shows_queues_lanes_and_workers(run, queue):
    queue.admit(10, 20)
    queue.admit(5, lane=Lane.BULK)
    worker = queue.consumer("worker-1")
    worker.take(budget=10, num_held=0)
    worker.renew(loading=False, tokens_per_s=100)
    queue.consumer("worker-2").renew(loading=True)
    queue.client.hset(queue.keys.control, "paused", "1")
    shown = done(run("status"))
    assert shown.splitlines()[0] == f"{queue.name} paused"
    assert re.search(r"interactive +30 +2 +1 +0 +\d+\.\d s", shown)
    assert re.search(r"bulk +5 +1 +0 +0 +\d+\.\d s", shown)
    assert re.search(r"worker-1 +live +\d+\.\d s +1 +100", shown)
    assert re.search(r"worker-2 +loading +\d+\.\d s +0 +-", shown)
    assert "tokens/s: 100; wait of new interactive work: 0.4 s; dead letters: 0" in shown


def test_status_of_one_queue_by_its_model(run, queue):
    queue.client.hset(MODELS, "other@1", "{}")
    assert f"{queue.name}\n" in done(run("status"))
    shown = done(run("status", queue.name.removesuffix("@1")))
    assert queue.name in shown
    assert "other" not in shown
    assert "no workers" in shown


def test_status_for_programs_is_one_object_a_line(run, queue):
    queue.admit(10)
    queue.consumer("worker-1").renew(loading=False, tokens_per_s=100)
    (line,) = done(run("status", "--json")).splitlines()
    found = json.loads(line)
    assert found["queue"] == queue.name
    assert found["interactive"] | {"oldest_ms": 0} == {
        "tokens": 10,
        "jobs": 1,
        "in_flight": 0,
        "orphans": 0,
        "oldest_ms": 0,
    }
    assert found["bulk"]["oldest_ms"] is None
    (worker,) = found["workers"]
    assert (worker["name"], worker["loading"], worker["tokens_per_s"]) == ("worker-1", False, 100)
    assert (found["tokens_per_s"], found["interactive_wait_s"]) == (100, 0.1)
    assert (found["paused"], found["draining"], found["dead_letters"]) == (False, False, 0)


def test_a_server_without_queues_says_so(run, queue):
    queue.client.delete(MODELS)
    assert done(run("status")) == "no queue is announced\n"
    assert done(run("status", "--json")) == ""


# Pause, drain, resume, forget


def test_pause_and_resume(run, queue):
    assert "is paused" in done(run("pause", queue.name))
    assert is_stopped(queue, "paused")
    assert "is resumed" in done(run("resume", queue.name))
    assert not is_stopped(queue, "paused")
    assert "neither paused nor draining" in done(run("resume", queue.name))


def test_drain_shows_what_is_left_until_nothing_is(run, url, queue):
    queue.admit(10, 20)
    command = [sys.executable, "-m", "jobqueue", "--redis", url, "drain", queue.name, "--yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == f"{queue.name} is draining: new calls are refused\n"
        assert child.stdout.readline() == "left: jobs 2, tokens 30, live workers 0\n"
        with WorkerDouble(url, queue.name):
            assert child.wait(LIMIT_S) == 0
        assert child.stdout.read().endswith(f"{queue.name} is empty\n")
    assert is_stopped(queue, "draining")


def test_drain_says_that_a_paused_queue_does_not_empty(run, url, queue):
    queue.admit(10)
    queue.client.hset(queue.keys.control, "paused", "1")
    command = [sys.executable, "-m", "jobqueue", "--redis", url, "drain", queue.name, "--yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        assert "paused" in child.stdout.readline()
        child.kill()


def test_drain_need_not_wait(run, queue):
    queue.admit(10)
    assert "is draining" in done(run("drain", queue.name, "--yes", "--no-wait"))
    assert is_stopped(queue, "draining")


def test_forget_removes_a_queue_that_nobody_serves(run, queue):
    queue.admit(10)
    assert "holds jobs (1)" in refused(run("forget", queue.name, "--yes"))
    assert "is forgotten" in done(run("forget", queue.name, "--yes", "--force"))
    assert not queue.client.hexists(MODELS, queue.name)
    assert not queue.client.exists(*queue.keys.of_script())
    assert "no queue" in refused(run("status", queue.name))


def test_forget_is_refused_while_there_are_workers(run, queue):
    queue.consumer("w").renew(loading=False)
    assert "1 live, 0 loading" in refused(run("forget", queue.name, "--yes", "--force"))
    assert queue.client.hexists(MODELS, queue.name)


# Dead letters


def test_letters_are_listed_and_shown_without_token_ids_unless_asked(run, queue):
    assert "no dead letters" in done(run("dead", "list", queue.name))
    letter_id = bury(queue, 3, request_id="who-asked")
    tokens = " ".join(str(token) for token in job_tokens(queue))

    listed = done(run("dead", "list", queue.name))
    assert re.search(
        rf"{letter_id} +\S+\+00:00 +failed its worker, deliveries: 3 +interactive +3 +3 +who-asked", listed
    )
    shown = done(run("dead", "show", queue.name, letter_id))
    for fact in (f"id: {letter_id}", "request: who-asked", "operation: embed", "lengths: 3", "deliveries: 3"):
        assert fact in shown.splitlines()
    assert tokens not in listed + shown
    assert f"sequence 0: {tokens}" in done(run("dead", "show", queue.name, letter_id, "--tokens"))


def job_tokens(queue):
    """The token ids in the one dead letter."""
    (letter,) = queue.dead_letters()
    return decode_job(letter[b"payload"]).tails[0]


def test_of_a_letter_that_this_version_cannot_read_is_shown_what_is_known(run, queue):
    bury(queue, 3)
    (letter,) = queue.dead_letters()
    newer = queue.client.xadd(queue.keys.dead, letter | {b"payload": b"\xffnewer"}).decode()
    result = run("dead", "show", queue.name, newer)
    assert result.exit_code == 1
    assert "request: req" in result.stdout
    assert "cannot be read: message version 255" in result.stderr


def test_of_a_letter_without_its_payload_is_shown_what_is_known(run, queue):
    bury(queue, 3)
    (letter,) = queue.dead_letters()
    del letter[b"payload"]
    letter_id = queue.client.xadd(queue.keys.dead, letter).decode()
    assert "payload: not kept" in done(run("dead", "show", queue.name, letter_id, "--tokens"))
    assert "not kept" in done(run("dead", "list", queue.name))
    assert "--dead-letters metadata" in refused(run("dead", "replay", queue.name, letter_id))


def test_what_a_caller_wrote_cannot_steer_the_terminal(run, queue):
    letter_id = bury(queue, 3, request_id="\x1b[31m[bold]\nred")
    for shown in (
        done(run("dead", "list", queue.name)),
        done(run("dead", "show", queue.name, letter_id)),
    ):
        assert r"\x1b[31m[bold]\nred" in shown
        assert "\x1b" not in shown


def test_a_replay_that_is_answered_says_so_and_removes_the_letter(run, url, queue):
    letter_id = bury(queue, 3)
    with WorkerDouble(url, queue.name):
        said = done(run("dead", "replay", queue.name, letter_id))
    assert re.match(r"answered with 1 rows in \d+\.\d ms; the dead letter is removed\n", said)
    assert queue.dead_letters() == []


def test_a_replay_that_fails_again_says_why_with_exit_status_1(run, url, queue):
    letter_id = bury(queue, 3)
    failure = Failure(reason=FailureReason.NON_FINITE_RESULT, message="row 0 is not finite")
    with WorkerDouble(url, queue.name, answer=lambda _: failure):
        result = run("dead", "replay", queue.name, letter_id)
    assert result.exit_code == 1
    assert result.stdout == "failed again: NON_FINITE_RESULT: row 0 is not finite\n"
    assert len(queue.dead_letters()) == 1


def test_a_replay_without_an_answer_gives_up_and_leaves_nothing(run, queue):
    letter_id = bury(queue, 3)
    assert "no answer in 0.3 s" in refused(run("dead", "replay", queue.name, letter_id, "--timeout-s", "0.3"))
    queue.check_depth()
    assert queue.client.xlen(queue.lanes[Lane.INTERACTIVE]) == 0


def test_a_replay_that_is_interrupted_leaves_nothing(url, queue):
    letter_id = bury(queue, 3)
    # A shell's background jobs ignore the signal, and so would the child.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "jobqueue", "--redis", url]
    command += ["dead", "replay", queue.name, letter_id]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        wait_for(lambda: queue.client.xlen(queue.lanes[Lane.INTERACTIVE]))
        child.send_signal(2)
        assert b"Traceback" not in child.communicate(timeout=LIMIT_S)[1]
    assert child.returncode != 0
    assert queue.check_depth().jobs == 0


def test_letters_are_purged_by_id_or_all_together(run, queue):
    first, _, _ = (bury(queue, size) for size in (1, 2, 3))
    assert done(run("dead", "purge", queue.name, first, "--yes")).endswith(": 1\n")
    assert done(run("dead", "purge", queue.name, "--yes")).endswith(": 2\n")
    assert queue.dead_letters() == []


def test_a_letter_that_is_not_there_is_one_clear_line(run, queue):
    for verb in ("show", "replay"):
        assert "has no dead letter 1-1" in refused(run("dead", verb, queue.name, "1-1"))
        assert "no dead letter's id" in refused(run("dead", verb, queue.name, "first"))
    assert "no dead letter's id" in refused(run("dead", "purge", queue.name, "first", "--yes"))


# Questions


@pytest.mark.parametrize("verb", ["drain", "forget", "dead purge"])
def test_destructive_verbs_refuse_where_there_is_no_terminal_to_ask_at(run, queue, verb):
    letter_id = bury(queue, 3)
    line = refused(run(*verb.split(), queue.name), exit_status=2)
    assert "no terminal" in line
    assert "--yes" in line
    assert queue.name in line
    assert not is_stopped(queue, "draining")
    assert queue.client.hexists(MODELS, queue.name)
    assert queue.client.xrange(queue.keys.dead)[0][0].decode() == letter_id


@pytest.mark.parametrize("verb", ["drain", "forget", "dead purge"])
def test_destructive_verbs_ask_at_a_terminal_and_take_no_for_an_answer(typed, queue, verb):
    bury(queue, 3)
    exit_status, shown = typed("n", *verb.split(), queue.name)
    assert exit_status == 1
    assert "[y/N]" in shown
    assert not is_stopped(queue, "draining")
    assert queue.client.hexists(MODELS, queue.name)
    assert len(queue.dead_letters()) == 1


@pytest.mark.parametrize(
    ("verb", "said"), [("drain", "is empty"), ("forget", "is forgotten"), ("dead purge", "removed dead letters")]
)
def test_destructive_verbs_act_on_yes(typed, queue, verb, said):
    bury(queue, 3)
    exit_status, shown = typed("y", *verb.split(), queue.name)
    assert exit_status == 0
    assert said in shown


# Refusals


def test_an_unknown_queue_is_one_line_with_those_there_are(run, queue):
    for arguments in (("status", "nobody"), ("pause", "nobody"), ("dead", "list", "nobody@2")):
        line = refused(run(*arguments))
        assert "no queue 'nobody" in line
        assert queue.name in line


def test_a_model_of_two_revisions_must_be_named_with_one(run, queue):
    queue.client.hset(MODELS, queue.name.removesuffix("1") + "2", "{}")
    assert "several revisions" in refused(run("pause", queue.name.removesuffix("@1")))


def test_without_a_server_nothing_runs_but_help(run):
    assert "pass --redis" in refused(run("status", redis=""), exit_status=2)
    for arguments in (["--help"], ["drain", "--help"], ["dead", "replay", "--help"]):
        assert "Usage" in done(run(*arguments, redis=f"redis://:{PASSWORD}@h"))


@pytest.mark.parametrize(
    ("redis", "reason"),
    [
        (f"redis://:{PASSWORD}@127.0.0.1:1", "cannot answer"),
        (f"unix://user:{PASSWORD}@/nowhere.sock", "cannot answer"),
        (f"http://:{PASSWORD}@127.0.0.1", "not a URL"),
        (f"redis://:{PASSWORD}@127.0.0.1:port", "not a URL"),
    ],
)
def test_a_server_that_cannot_be_reached_is_one_line_without_its_password(run, redis, reason):
    line = refused(run("status", redis=redis))
    assert reason in line
    assert PASSWORD not in line


def test_a_wrong_password_is_one_line_without_it(run):
    with redis_server(embedded_binary()) as url, own_queue(url) as other:
        other.client.acl_setuser("operator", enabled=True, passwords="+right", keys=["*"], categories=["+@all"])
        line = refused(run("status", redis=f"unix://operator:{PASSWORD}@{url.removeprefix('unix://')}"))
    assert "refuses us" in line
    assert PASSWORD not in line


def test_an_evicting_server_is_refused(run):
    with redis_server(embedded_binary(), "--maxmemory-policy", "allkeys-lru") as url:
        assert "noeviction" in refused(run("status", redis=url))
