"""What files say of how they were made, and which of them may be replaced."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from multidiff.errors import InputError
from multidiff.provenance import one_line, plain, refuse_other, tags, warn_of_faults

RECIPE = {"checkpoint": "some", "seed": 7, "path": Path("a/b")}


@pytest.mark.parametrize("longest", [200, 2000, 100_000])
def test_a_comment_is_json_of_at_most_so_many_characters_and_tells_prompts_apart(longest: int) -> None:
    seen = set()
    for prompt in ("", "$(touch x)\n\"'", "é🐶\0", "word " * 10_000, "word " * 10_000 + "more"):
        comment = tags(RECIPE, prompt, 3, longest)["comment"]
        assert len(comment) <= longest
        assert comment.isascii()
        held = json.loads(comment)
        assert (held["seed"], held["sample"]) == (7, 3)
        assert held["prompt"] == prompt or prompt.startswith(held["prompt"].removesuffix("..."))
        seen.add(comment)
    assert len(seen) == 5


def test_titles_are_one_line_that_utf_8_can_hold() -> None:
    assert one_line("one\ntwo\r\n\tthree\x1b[31m") == "one two three [31m"
    one_line("a\udc80b\0").encode()
    assert tags({}, "\n", 12, 100)["title"] == "sample 12"


def test_only_files_of_the_same_recipe_may_be_replaced() -> None:
    refuse_other(Path("x"), RECIPE, plain(RECIPE), plain(RECIPE))
    unseeded = {"checkpoint": "some"}
    for recipe, held in ((RECIPE, None), (RECIPE, plain({**RECIPE, "seed": 8})), (unseeded, plain(unseeded))):
        with pytest.raises(InputError, match="made otherwise"):
            refuse_other(Path("x"), recipe, held, plain(recipe))


def test_faults_are_told_once_and_briefly() -> None:
    with pytest.warns(UserWarning, match="11 of 20 clips .*: sample 0 still, .*7 still and 3 more$") as told:
        warn_of_faults([f"{k} still" for k in range(11)], 20, "clips")
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_faults([], int(np.int64(3)), "clips")
