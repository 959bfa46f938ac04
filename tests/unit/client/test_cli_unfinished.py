"""A file that is killed at any step, gone on with, and refused where it would be mixed."""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from qwen3_client.cli.endings import CannotGoOnError
from qwen3_client.cli.sources import Row
from qwen3_client.cli.unfinished import Maker, State, unfinished_file

SETTINGS = {"command": "embed", "dimensions": 0, "instruction": None}
MAKER = Maker(model="m", model_revision="r1")
TEXTS = [f"text {number}" for number in range(5)]
COMPLETE = "".join(f"<{text}>" for text in TEXTS)


class Killed(BaseException):
    """What no handler of ours sees, as none sees a kill -9."""


def rows(texts=TEXTS):
    for index, text in enumerate(texts):
        yield Row(index=index, place=f"line {index + 1}", value=text, end=index + 1)


def beside(part: Path) -> Path:
    """As Parquet does, which makes another file of the part."""
    made = part.with_name("made")
    made.write_bytes(part.read_bytes())
    return made


def itself(part: Path) -> Path:
    return part


def run_again(path, **options):
    """As a user would, who does not know where the run before was killed."""
    with suppress(typer.Exit):  # it was complete already
        run(path, **options)


def run(path, *, texts=TEXTS, settings=SETTINGS, maker=MAKER, completed=itself, overwrite=False, restart=False):
    """How many rows were done before."""
    with unfinished_file(path, settings, overwrite=overwrite, restart=restart) as file:
        num_done, source = file.num_rows, rows(texts)
        file.pass_over_done(source)
        for row in source:
            file.append(f"<{row.value}>".encode(), [row], maker)
        file.complete(completed)
    return num_done


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def begun(path):
    """Two rows are done."""

    def texts():
        yield from TEXTS[:2]
        raise Killed

    with pytest.raises(Killed):
        run(path, texts=texts())
    return path


@pytest.fixture
def kill_at(monkeypatch):
    """Kill at the given file operation: before it, or after it."""
    countdown = {"left": -1}

    def step():
        if countdown["left"] == 0:
            raise Killed
        countdown["left"] -= 1

    def dying(name):
        real = getattr(Path, name)

        def operation(self, *arguments, **options):
            step()
            found = real(self, *arguments, **options)
            step()
            return found

        return operation

    for name in ("replace", "unlink", "write_text", "write_bytes"):
        monkeypatch.setattr(Path, name, dying(name))
    return lambda number: countdown.update(left=number)


def files(path):
    return sorted(file.name for file in path.parent.iterdir())


@pytest.mark.parametrize("completed", [itself, beside])
def test_a_run_killed_at_any_step_is_gone_on_with(tmp_path, kill_at, completed):
    num_kills = 0
    for number in range(1000):
        path = tmp_path / str(number) / "out"
        path.parent.mkdir()
        kill_at(number)
        try:
            run(path, completed=completed)
        except Killed:
            num_kills += 1
        else:
            break
        kill_at(-1)
        if files(path) != ["out"]:
            run_again(path, completed=completed)
        assert (files(path), path.read_text()) == (["out"], COMPLETE)
    assert num_kills > 20


def test_what_is_done_is_not_done_again(begun):
    assert not begun.exists()
    assert run(begun) == 2
    assert begun.read_text() == COMPLETE
    assert files(begun) == ["out"]


def test_bytes_of_which_the_state_does_not_know_are_cut_off(begun):
    with begun.with_name("out.part").open("ab") as part:
        part.write(b"<text 2><tex")
    run(begun)
    assert begun.read_text() == COMPLETE


def test_what_is_not_done_yet_may_change(begun):
    run(begun, texts=[*TEXTS[:2], "another text"])
    assert begun.read_text() == "<text 0><text 1><another text>"


@pytest.mark.parametrize("texts", [["text 0", "changed", "text 2"], ["text 0"], [], ["text 0text 1", "", ""]])
def test_what_is_done_may_not(begun, texts):
    with pytest.raises(CannotGoOnError, match="the first 2 rows of the input are not those done already"):
        run(begun, texts=texts)
    assert run(begun) == 2


def test_other_options_are_refused_by_name(begun):
    with pytest.raises(CannotGoOnError, match="begun with dimensions 0, now 64; instruction None, now '': give"):
        run(begun, settings=SETTINGS | {"dimensions": 64, "instruction": ""})
    assert run(begun) == 2


@pytest.mark.parametrize("maker", [Maker(model="m", model_revision="r2"), Maker(model="n", model_revision="r1")])
def test_another_revision_or_model_is_refused_by_name(begun, maker):
    with pytest.raises(CannotGoOnError, match=f"begun with m revision r1, and the service has {maker} now"):
        run(begun, maker=maker)
    assert run(begun) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"maker": null, "pages": 3}'])
def test_a_state_of_another_program_is_refused(begun, content):
    begun.with_name("out.state").write_text(content)
    with pytest.raises(CannotGoOnError, match=r"out\.state is not of this program, or of another version"):
        run(begun)
    assert run(begun, restart=True) == 0


def test_a_part_that_lost_rows_is_refused(begun):
    begun.with_name("out.part").write_bytes(b"<text")
    with pytest.raises(CannotGoOnError, match=r"out\.part is shorter than it was"):
        run(begun)


def test_a_restart_begins_anew_and_may_be_killed_too(begun):
    def killed_at_once():
        raise Killed
        yield

    with pytest.raises(Killed):
        run(begun, texts=killed_at_once(), restart=True)
    assert run(begun, settings={}) == 0
    assert begun.read_text() == COMPLETE


def test_a_complete_file_is_replaced_only_when_asked(path):
    path.write_text("precious")
    with pytest.raises(typer.BadParameter, match="is there already: --overwrite replaces it"):
        run(path)
    assert (files(path), path.read_text()) == (["out"], "precious")
    run(path, overwrite=True)
    assert path.read_text() == COMPLETE


def test_a_file_that_came_meanwhile_is_not_replaced_either(begun):
    begun.write_text("precious")
    with pytest.raises(typer.BadParameter, match="is there already"):
        run(begun)
    assert begun.read_text() == "precious"
    assert run(begun, overwrite=True) == 2
    assert begun.read_text() == COMPLETE


def test_a_link_stays_one(tmp_path):
    link, target = tmp_path / "link", tmp_path / "folder" / "out"
    target.parent.mkdir()
    link.symlink_to(target)
    run(link)
    assert (link.is_symlink(), target.read_text()) == (True, COMPLETE)


def test_only_regular_files_are_replaced(path):
    os.mkfifo(path)
    with pytest.raises(typer.BadParameter, match="is no regular file"):
        run(path, overwrite=True)
    assert path.is_fifo()


@pytest.mark.parametrize("completed", [itself, beside])
def test_two_runs_do_not_write_to_one_file(path, completed):
    def refused():
        with pytest.raises(CannotGoOnError, match=r"out\.part is being written by another run"):
            run(path)

    def completed_meanwhile(part):
        refused()
        return completed(part)

    with unfinished_file(path, SETTINGS, overwrite=False, restart=False) as file:
        refused()
        source = list(rows())
        file.append(COMPLETE.encode(), source, MAKER)
        refused()
        file.complete(completed_meanwhile)
    assert (files(path), path.read_text()) == (["out"], COMPLETE)


def test_a_run_that_opened_the_part_of_one_that_ended_is_refused(path, monkeypatch):
    def late(part, _):
        real(part, fcntl.LOCK_EX)
        path.with_name("out.part").replace(path)

    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(CannotGoOnError, match=r"out\.part is being written by another run"):
        run(path)
    assert path.exists()


def test_an_error_says_how_far_it_came_and_leaves_no_empty_file(path, capsys):
    def broken(num_rows):
        yield from TEXTS[:num_rows]
        raise OSError("the disk broke")

    with pytest.raises(OSError, match="broke"):
        run(path, texts=broken(0))
    assert (files(path), capsys.readouterr().err) == ([], "")
    with pytest.raises(OSError, match="broke"):
        run(path, texts=broken(3))
    assert capsys.readouterr().err == "qwen3: 3 rows are done: run it again, and it goes on there\n"
    assert State.read(path.with_name("out.state")).num_rows == 3


def test_the_state_holds_no_text(begun):
    state = json.loads(begun.with_name("out.state").read_text())
    assert set(state) == {"settings", "maker", "num_rows", "num_bytes", "fingerprint"}
    assert not any(text in json.dumps(state) for text in TEXTS)
