"""The operator's command line `qwen3-queue`: what queues hold, and steering them.

Exit status 1 where something cannot be done, 2 where the command line is wrong or a question cannot be asked.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobqueue.dead_letters import DeadLetter, purge, read_letter, read_letters
from jobqueue.errors import QueueAwayError, QueueError
from jobqueue.lanes import Lane
from jobqueue.messages import Answer, Failure, Job
from jobqueue.operator import Operator, operating
from jobqueue.replay import replay
from jobqueue.status import LaneStatus, QueueStatus, WorkerStatus

EXIT_FAILED, EXIT_USAGE = 1, 2
TABLE_WIDTH = 240  # a narrow terminal wraps whole lines: folded cells would cut ids in pieces

app = typer.Typer(
    name="qwen3-queue",
    help="Look into the queues of a qwen3-serve service, and steer them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
dead = typer.Typer(help="Dead letters: jobs that failed their workers and were set aside.", no_args_is_help=True)
app.add_typer(dead, name="dead")

Queue = Annotated[str, typer.Argument(help="MODEL@REVISION, or MODEL where one revision is announced.")]
LetterId = Annotated[str, typer.Argument(metavar="ID", help="The letter's id, from `dead list`.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def main() -> None:
    app()


@app.callback()
def remember_server(
    context: typer.Context,
    redis: Annotated[str, typer.Option(envvar="QWEN3_REDIS", help="URL of the Redis server.")] = "",
) -> None:
    """Look into the queues of a qwen3-serve service, and steer them."""
    context.obj = redis  # connected to by the verbs, so that their --help needs no server


@app.command()
def status(
    context: typer.Context,
    queue: Annotated[str, typer.Argument(help="MODEL[@REVISION]; without it all queues.")] = "",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of tables.")] = False,
) -> None:
    """Show what queues hold, who works on them and how fast."""
    with _operating(context) as operator:
        names = [operator.resolve(queue)] if queue else operator.queues()
        found = [operator.status(name) for name in names]
    if as_json:
        for each in found:
            typer.echo(json.dumps(_as_json(each)))
    elif not found:
        typer.echo("no queue is announced")
    else:
        for each in found:
            _print_status(each)


@app.command()
def pause(context: typer.Context, queue: Queue) -> None:
    """Let workers take nothing; calls are admitted and wait, until `resume`."""
    with _operating(context) as operator:
        name = operator.resolve(queue)
        operator.pause(name)
        typer.echo(f"{name} is paused: its workers take nothing new, calls wait")


@app.command()
def resume(context: typer.Context, queue: Queue) -> None:
    """End `pause` and `drain`."""
    with _operating(context) as operator:
        name = operator.resolve(queue)
        was_stopped = operator.resume(name)
        typer.echo(f"{name} is resumed" if was_stopped else f"{name} was neither paused nor draining")


@app.command()
def drain(
    context: typer.Context,
    queue: Queue,
    *,
    yes: Yes = False,
    wait: Annotated[bool, typer.Option(help="Wait until the queue is empty, showing what is left.")] = True,
) -> None:
    """Refuse new calls until `resume`, and wait until what was admitted has ended."""
    with _operating(context) as operator:
        name = operator.resolve(queue)
        _confirm(f"Refuse every new call to {name} until it is resumed?", yes=yes)
        operator.drain(name)
        typer.echo(f"{name} is draining: new calls are refused")
        if wait:
            for left in operator.until_empty(name):
                typer.echo(_left(left))
            typer.echo(f"{name} is empty")


@app.command()
def forget(
    context: typer.Context,
    queue: Queue,
    *,
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="Drop the jobs that are in it.")] = False,
) -> None:
    """Remove a queue that nobody serves any more: its announcement, its jobs, its dead letters."""
    with _operating(context) as operator:
        name = operator.resolve(queue)
        now = operator.status(name)
        _confirm(f"Remove {name}, its jobs ({now.jobs}) and its dead letters ({now.dead_letters})?", yes=yes)
        operator.forget(name, force=force)
        typer.echo(f"{name} is forgotten")


@dead.command(name="list")
def list_letters(context: typer.Context, queue: Queue) -> None:
    """List the dead letters, oldest first."""
    with _operating(context) as operator:
        name = operator.resolve(queue)
        table = _table("id", "died", "reason", "lane", "tokens", "deliveries", "request", "payload")
        for letter in read_letters(operator, name):
            table.add_row(*map(_plain, _letter_row(letter)))
    if table.row_count:
        _console().print(table)
    else:
        typer.echo(f"{name} has no dead letters")


@dead.command()
def show(
    context: typer.Context,
    queue: Queue,
    letter_id: LetterId,
    *,
    tokens: Annotated[bool, typer.Option("--tokens", help="The token ids too, which are the caller's text.")] = False,
) -> None:
    """Show one dead letter: what is known of it, and its token ids only where asked."""
    with _operating(context) as operator:
        letter = read_letter(operator, operator.resolve(queue), letter_id)
        _print_facts(_letter_facts(letter))
        job = letter.job()
    if job:
        _print_facts(_job_facts(job))
    if job and tokens:
        _print_facts(_token_facts(job))


@dead.command(name="replay")
def replay_letter(
    context: typer.Context,
    queue: Queue,
    letter_id: LetterId,
    *,
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=0.1, help="Seconds to wait for the answer.")] = 60.0,
) -> None:
    """Run a dead letter's job once more, alone, and print what became of it; answered, the letter is removed."""
    with _operating(context) as operator:
        answer = replay(operator, operator.resolve(queue), letter_id, timeout_s=timeout_s)
    typer.echo(_outcome(answer))
    raise typer.Exit(EXIT_FAILED if isinstance(answer, Failure) else 0)


@dead.command(name="purge")
def purge_letters(
    context: typer.Context,
    queue: Queue,
    letter_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="None: all of them.")] = None,
    *,
    yes: Yes = False,
) -> None:
    """Remove dead letters for good."""
    with _operating(context) as operator:
        name = operator.resolve(queue)
        what = ", ".join(letter_ids) if letter_ids else f"all ({operator.status(name).dead_letters})"
        _confirm(f"Remove dead letters of {name}: {what}?", yes=yes)
        num_removed = purge(operator, name, letter_ids or [])
        typer.echo(f"removed dead letters of {name}: {num_removed}")


@contextmanager
def _operating(context: typer.Context) -> Iterator[Operator]:
    if not context.obj:
        _fail("the URL of the Redis server is missing: pass --redis before the verb, or set QWEN3_REDIS", EXIT_USAGE)
    try:
        with operating(context.obj) as operator:
            yield operator
    except QueueAwayError as error:
        _fail(f"Redis cannot answer: {error}", EXIT_FAILED)
    except QueueError as error:
        _fail(str(error), EXIT_FAILED)


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        _fail(f"there is no terminal to ask at, pass --yes: {question}", EXIT_USAGE)
    typer.confirm(question, abort=True)


def _fail(reason: str, exit_status: int) -> NoReturn:
    typer.echo(f"qwen3-queue: {_visible(reason)}", err=True)
    raise typer.Exit(exit_status)


def _as_json(status: QueueStatus) -> dict[str, Any]:
    computed = {"tokens_per_s": status.tokens_per_s, "interactive_wait_s": status.interactive_wait_s}
    return asdict(status) | computed


def _print_status(status: QueueStatus) -> None:
    switches = [word for word, is_on in (("paused", status.paused), ("draining", status.draining)) if is_on]
    lanes = _table("lane", "tokens", "jobs", "in flight", "orphans", "oldest")
    for lane, state in ((Lane.INTERACTIVE, status.interactive), (Lane.BULK, status.bulk)):
        lanes.add_row(lane.name.lower(), *_lane_row(state))
    workers = _table("worker", "state", "lease", "in flight", "tokens/s")
    for worker in status.workers:
        workers.add_row(*map(_plain, _worker_row(worker)))
    console = _console()
    console.print(_plain(" ".join([status.queue, *switches])), style="bold")
    console.print(lanes)
    console.print(workers if status.workers else "  no workers")
    console.print(_plain(_summary(status)))


def _lane_row(lane: LaneStatus) -> Sequence[str]:
    numbers = (lane.tokens, lane.jobs, lane.in_flight, lane.orphans)
    return *map(str, numbers), _seconds(lane.oldest_ms and lane.oldest_ms / 1000)


def _worker_row(worker: WorkerStatus) -> Sequence[str]:
    state = "loading" if worker.loading else "live"
    lease = _seconds(worker.lease_ms / 1000) if worker.is_alive else "over"
    return (
        worker.name,
        state if worker.is_alive else "dead",
        lease,
        str(worker.in_flight),
        _rate(worker.tokens_per_s),
    )


def _summary(status: QueueStatus) -> str:
    loading = sum(worker.loading and worker.is_alive for worker in status.workers)
    return (
        f"  workers: {status.num_live} live, {loading} loading; tokens/s: {_rate(status.tokens_per_s)}; "
        f"wait of new interactive work: {_seconds(status.interactive_wait_s)}; dead letters: {status.dead_letters}"
    )


def _left(status: QueueStatus) -> str:
    paused = "; it is paused, so nothing more ends" if status.paused else ""
    return f"left: jobs {status.jobs}, tokens {status.tokens}, live workers {status.num_live}{paused}"


def _outcome(answer: Answer) -> str:
    if isinstance(answer, Failure):
        return f"failed again: {answer.reason.name}: {_visible(answer.message)}"
    return f"answered with {answer.num_rows} rows in {answer.compute_us / 1000:.1f} ms; the dead letter is removed"


def _print_facts(facts: dict[str, str]) -> None:
    for name, value in facts.items():
        typer.echo(f"{name}: {_visible(value)}")


def _letter_row(letter: DeadLetter) -> Sequence[str]:
    facts = _letter_facts(letter)
    return [facts[name] for name in ("id", "died", "reason", "lane", "tokens", "deliveries", "request", "payload")]


def _letter_facts(letter: DeadLetter) -> dict[str, str]:
    return {
        "id": letter.letter_id,
        "died": datetime.fromtimestamp(letter.died_ms / 1000, UTC).isoformat(timespec="seconds"),
        "reason": letter.reason,
        "lane": letter.lane.name.lower(),
        "tokens": str(letter.tokens),
        "cost": str(letter.cost),
        "deliveries": str(letter.deliveries),
        "request": letter.request_id,
        "tenant": letter.tenant,
        "entry": letter.entry_id,
        "payload": "not kept" if letter.payload is None else f"{len(letter.payload)} bytes",
    }


def _job_facts(job: Job) -> dict[str, str]:
    return {
        "operation": job.operation.name.lower(),
        "sequences": str(len(job.tails)),
        "lengths": " ".join(map(str, job.lengths)),
        "shared": str(len(job.prefix)),
        "dimensions": str(job.dimensions),
        "normalize": str(job.normalize).lower(),
        "encoding": job.encoding.name.lower(),
    }


def _token_facts(job: Job) -> dict[str, str]:
    tails = {f"sequence {number}": " ".join(map(str, tail)) for number, tail in enumerate(job.tails)}
    return {"shared tokens": " ".join(map(str, job.prefix))} | tails


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 2))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    return Console(width=TABLE_WIDTH, highlight=False)


def _plain(text: str) -> Text:
    """Data, not rich's markup."""
    return Text(_visible(text))


def _visible(text: str) -> str:
    """One line that cannot steer a terminal: callers choose some of what is printed, such as request ids."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
