"""What each kind of input is read as, and how a row that is no text is named."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import typer
from pyarrow import parquet

from qwen3_client.cli import sources
from qwen3_client.cli.endings import InputRefusedError
from qwen3_client.cli.sources import STDIN, open_texts


@pytest.fixture
def read(tmp_path):
    """The rows of a file with this name and content."""

    def rows(name, content, *, field="text", skip_empty=False, input_format=None):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with open_texts(None, file, input_format=input_format, field=field, skip_empty=skip_empty) as source:
            return list(source.rows)

    return rows


def values(rows):
    return [row.value for row in rows]


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def parquet_file(tmp_path):
    def write(**columns):
        parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
        return tmp_path.joinpath("t.parquet").read_bytes()

    return write


@pytest.mark.parametrize(
    "content",
    ["one\ntwo\n", "one\ntwo", "one\r\ntwo\r\n", b"\xef\xbb\xbfone\ntwo\n"],
    ids=["LF", "no LF at the end", "CRLF", "byte order mark"],
)
def test_lines_of_text_are_texts(read, content):
    assert values(read("t.txt", content)) == ["one", "two"]


def test_only_a_line_feed_ends_a_line(read):
    text = "one\u2028still one\x0b\x0c\x85\r, and \ufeff漢字 🦆"
    assert values(read("t.txt", f"{text}\ntwo")) == [text, "two"]


def test_a_field_of_jsonl_is_the_text(read):
    content = jsonl({"text": "a", "id": 1}, {"text": "ü\n漢"})
    assert values(read("t.jsonl", content)) == ["a", "ü\n漢"]
    assert values(read("t.NDJSON", "\ufeff" + jsonl({"body": "a"}), field="body")) == ["a"]
    assert values(read("t.log", content, input_format="jsonl")) == ["a", "ü\n漢"]


def test_a_column_of_csv_is_the_text_and_may_span_lines(read):
    rows = read("t.csv", '\ufeffid,text\r\n1,"a, b\r\nand ""c"""\r\n2,d\r\n')
    assert values(rows) == ['a, b\r\nand "c"', "d"]
    assert [row.place for row in rows] == ["line 2", "line 4"]


def test_a_column_of_parquet_is_the_text(read, parquet_file):
    content = parquet_file(text=["x"] * 1000, body=[f"text {number}" for number in range(1000)])
    rows = read("t.parquet", content, field="body")
    assert values(rows) == [f"text {number}" for number in range(1000)]
    assert (rows[-1].place, rows[-1].end) == ("row 1000", 1000)


def test_arguments_are_texts():
    with open_texts(["a", "b"], None, input_format=None, field="", skip_empty=False) as source:
        assert [(row.index, row.place, row.value) for row in source.rows] == [(0, "text 1", "a"), (1, "text 2", "b")]


def test_a_row_tells_how_much_of_the_file_is_read(tmp_path):
    for name, content in {"a.txt": "one\ntwo\n", "a.jsonl": '{"text": "ü"}\n', "a.csv": 'text\n"a\nb"\nc\n'}.items():
        tmp_path.joinpath(name).write_text(content)
        with open_texts(None, tmp_path / name, input_format=None, field="text", skip_empty=False) as source:
            assert [row.end for row in source.rows][-1] == source.size == len(content.encode())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "a\n\nb\n", "line 2 has no text; --skip-empty leaves such rows out"),
        ("t.txt", "a\n \t\u3000\n", "line 2 has no text; --skip-empty leaves such rows out"),
        ("t.txt", b"a\nb\xff\n", "line 2 is not UTF-8: invalid start byte at byte 2"),
        ("t.txt", "a".encode("utf-16"), "line 1 is not UTF-8: invalid start byte at byte 1"),
        ("t.jsonl", '{"text": "a"}\n{"text": \n', "line 2 is not JSON: Expecting value at character 9"),
        ("t.jsonl", '{"text": "a"} {}\n', "line 1 is not JSON: Extra data at character 15"),
        ("t.jsonl", '"a"\n', "line 1 is not a JSON object"),
        ("t.jsonl", '{"text": "a"}\n\n', "line 2 has no text; --skip-empty leaves such rows out"),
        ("t.jsonl", '{"text": null}\n', "line 1 has no text; --skip-empty leaves such rows out"),
        ("t.jsonl", '{"id": 1, "body": ""}\n', "line 1 has no field 'text'; there are id, body"),
        ("t.jsonl", "{}\n", "line 1 has no field 'text'; there are none"),
        ("t.jsonl", '{"text": 7}\n', "line 1 has no text but 7"),
        ("t.jsonl", '{"text": ["a"]}\n', "line 1 has no text but ['a']"),
        ("t.jsonl", '{"text": "\\ud83e"}\n', "line 1 has half a character, a lone surrogate"),
        ("t.csv", "id,body\n1,a\n", "line 1 has no column 'text'; there are id, body"),
        ("t.csv", "", "line 1 has no column 'text'; there are none"),
        ("t.csv", "id,text\n1,a\n2\n", "line 3 has 1 columns, and 'text' is column 2"),
        ("t.csv", "id,text\n1,\n", "line 2 has no text; --skip-empty leaves such rows out"),
        ("t.csv", "id,text\n\n1,a\n", "line 2 has no text; --skip-empty leaves such rows out"),
        ("t.csv", 'text\na\n"b\nc\n', "line 3 is not CSV: unexpected end of data"),
        ("t.parquet", b"not Parquet, far from it", "is not Parquet"),
    ],
)
def test_a_row_that_is_no_text_is_named(read, name, content, message):
    with pytest.raises(InputRefusedError) as refused:
        read(name, content)
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000])
def test_json_that_python_does_not_read_is_named_too(read, text):
    with pytest.raises(InputRefusedError, match="line 1 cannot be read"):
        read("t.jsonl", f'{{"text": {text}')


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["a"]}, "has no column 'text'; there are body"),
        ({"text": ["a", None]}, "row 2 has no text"),
        ({"text": [1]}, "row 1 has no text but 1"),
    ],
)
def test_a_row_of_parquet_that_is_no_text_is_named(read, parquet_file, columns, message):
    with pytest.raises(InputRefusedError, match=message):
        read("t.parquet", parquet_file(**columns))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "\na\n \nb\n\n"),
        ("t.jsonl", '\n{"text": "a"}\n{"text": ""}\n{"text": "b"}\n{"text": null}'),
        ("t.csv", "text\n\na\n \nb\n\n"),
    ],
)
def test_rows_without_text_may_be_left_out_and_still_count(read, name, content):
    rows = read(name, content, skip_empty=True)
    assert [(row.index, row.value) for row in rows] == [(1, "a"), (3, "b")]


def test_a_line_without_end_is_not_read_into_memory(read, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 100)
    assert values(read("t.txt", "a" * 99 + "\n")) == ["a" * 99]
    with pytest.raises(InputRefusedError, match="line 2 is longer than 100 bytes"):
        read("t.txt", "a\n" + "b" * 1000)
    with pytest.raises(InputRefusedError, match="line 2 is not CSV: field larger than field limit"):
        read("t.csv", 'text\n"' + "b\n" * 100)


def test_standard_input_is_read_as_it_comes(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"one\ntwo")))
    with open_texts(None, None, input_format=None, field="", skip_empty=False) as source:
        assert source.size is None
        assert values(source.rows) == ["one", "two"]


@pytest.mark.parametrize(
    ("arguments", "file", "message"),
    [(["a"], Path("t"), "not both"), (None, STDIN, "give a file, not standard input")],
)
def test_what_cannot_be_is_refused(arguments, file, message):
    with (
        pytest.raises(typer.BadParameter, match=message),
        open_texts(arguments, file, input_format="parquet", field="text", skip_empty=False),
    ):
        pass


def test_parquet_without_pyarrow_names_the_extra(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "qwen3_client.cli.parquet", raising=False)
    with pytest.raises(typer.BadParameter, match=r"pip install 'qwen3-serve\[parquet\]'"):
        read("t.parquet", b"")
