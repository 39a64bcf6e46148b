"""Captions come from the tables that people have, and from the names of folders."""

from __future__ import annotations

import json

import pytest

from multidiff import captions
from multidiff.captions import Row, Table, matched, parse
from multidiff.errors import InputError


def table(text: str, name: str = "captions.csv") -> Table:
    return parse(text.encode(), name)


@pytest.mark.parametrize("column", ["file", "path", "filename", "file_name", "File", " FILE_NAME "])
@pytest.mark.parametrize("caption", ["caption", "text", "prompt", "Caption"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_by_any_of_its_usual_names(column: str, caption: str, delimiter: str) -> None:
    lines = [[column, caption, "speaker"], ["a.wav", "a dog barks", "rex"], ["b.wav", "", "tom"]]
    read = table("\n".join(delimiter.join(line) for line in lines))
    assert read.rows["a.wav"].captions == ("a dog barks",)
    assert read.rows["a.wav"].fields["speaker"] == "rex"
    assert read.rows["b.wav"].captions == ()
    assert "file" not in read.columns


def test_json_lines_are_the_same_table_as_csv() -> None:
    records = [{"file": "x/a.wav", "caption": "one, two", "n": 3}, {"file": "b.wav", "caption": "drei", "n": 4}]
    lines = "\n".join(json.dumps(record) for record in records)
    assert table(lines, "metadata.jsonl") == table('file,caption,n\nx/a.wav,"one, two",3\nb.wav,drei,4\n')


def test_byte_order_marks_crlf_and_backslashes_are_no_matter() -> None:
    read = table('\ufefffile,caption\r\ndogs\\a.wav,"a\r\ndog"\r\n')
    assert read.rows == {"dogs/a.wav": Row(("a dog",), {"caption": "a dog"})}


def test_several_captions_of_a_file_are_all_kept() -> None:
    numbered = table("file_name,caption_1,caption_2\na.wav,one,two\n")
    repeated = table("file_name,caption\na.wav,one\na.wav,two\na.wav,one\n")
    listed = table('{"file": "a.wav", "captions": ["one", "two"]}', "captions.jsonl")
    assert numbered.rows["a.wav"].captions == repeated.rows["a.wav"].captions == listed.rows["a.wav"].captions
    assert numbered.rows["a.wav"].captions == ("one", "two")


def test_lines_that_cannot_be_used_are_named_and_the_others_kept() -> None:
    read = table("file,caption\na.wav,a dog, barking\nb.wav,a cat\n,no name\n")
    assert list(read.rows) == ["b.wav"]
    assert [line.partition(" ")[0] for line in read.left_out] == ["captions.csv:2", "captions.csv:4"]
    lines = table('{"file": "a.wav", "caption": "x"}\n{"file": \n[1]\n', "captions.jsonl")
    assert list(lines.rows) == ["a.wav"]
    assert len(lines.left_out) == 2


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"name,caption\na.wav,x\n", "no column 'file'.*its columns are name, caption"),
        (b"file,caption\n\xff\xfe,x\n", "not UTF-8"),
        (b"", "no row"),
        (b"file,caption\n", "no row"),
        (b"file,caption\n,x\n", "no row that could be used: captions.csv:2 names no file"),
    ],
)
def test_tables_without_use_are_refused(content: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why) as refused:
        parse(content, "captions.csv")
    assert "\n" not in str(refused.value)


def test_names_fit_exactly_or_by_their_end_but_never_ambiguously() -> None:
    sources = ["dogs/a.wav", "cats/a.wav", "cats/b.flac", "c.wav", "d.wav", "e.wav"]
    names = ["dogs/a.wav", "a.wav", "my_sounds/cats/b.flac", "C", "x/d.wav", "y/d.wav", "x/e.wav", "e.wav", "f.wav"]
    read = table("file,caption\n" + "".join(f"{name},{i}\n" for i, name in enumerate(names)))
    rows, missing = matched(read, sources)
    assert {source: row.captions for source, row in rows.items()} == {
        "dogs/a.wav": ("0",),
        "cats/b.flac": ("2",),
        "c.wav": ("3",),
        "e.wav": ("7",),
    }
    assert missing == ["a.wav", "x/d.wav", "y/d.wav", "x/e.wav", "f.wav"]


def test_splits_by_their_usual_names() -> None:
    assert [captions.split_of(name, "a") for name in ("train", "Validation", "val", "test", " eval ")] == [
        0,
        1,
        1,
        2,
        2,
    ]
    with pytest.raises(InputError, match=r"split 'fold3' of a\.wav is unknown; allowed: train, validation, test"):
        captions.split_of("fold3", "a.wav")
