"""Files of prompts, with the columns that a domain adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from multidiff import prompts
from multidiff.errors import InputError
from multidiff.prompts import Column

COLUMNS = {"count": Column(int, "a whole number"), "shade": Column(str, "a shade")}


def test_columns_are_parsed_and_those_without_a_value_left_out(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,count,shade\none,3,\ntwo,,\n")
    assert prompts.read(path, COLUMNS) == {"prompt": ["one", "two"], "count": [3, None]}
    assert prompts.read(path, {**COLUMNS, "count": Column(float, "")})["count"] == [3.0, None]


def test_what_is_wrong_is_said_in_the_domains_words(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one", "count": "many"}')
    with pytest.raises(InputError, match="count 'many' is not a whole number"):
        prompts.read(path, COLUMNS)
    with pytest.raises(InputError, match=r"unknown column of .*'count'.*allowed: negative_prompt, prompt"):
        prompts.read(path, {})


def test_each_value_goes_with_its_prompt() -> None:
    spread = prompts.spread({"prompt": ["a", "b"], "count": [1], "shade": ["dark", "light"]})
    assert list(zip(*spread, strict=True)) == [("a", 1, "dark"), ("b", 1, "light")]
    with pytest.raises(InputError, match="count: 3 of them for 4 prompts"):
        prompts.spread({"prompt": ["a"] * 4, "count": [1, 2, 3]})
