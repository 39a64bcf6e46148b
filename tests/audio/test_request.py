"""What a call asks for: spreading over prompts, files of prompts, and every slip of the hand on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multidiff.errors import InputError
from multidiff_audio.request import BEYOND, Request, read_prompts


def test_one_for_all_and_one_for_each() -> None:
    request = Request.of(["a", "b", "c"], "noise", [1, 0.5, 2])
    assert request.prompts == ("a", "b", "c")
    assert request.negatives == ("noise",) * 3
    assert request.seconds == (1.0, 0.5, 2.0)
    assert [request.place(i) for i in (0, 1, 2, 3, 7, 2**60)] == [0, 1, 2, 0, 1, 2**60 % 3]


def test_one_prompt_in_several_lengths() -> None:
    request = Request.of("a", None, (1, 2))
    assert request.prompts == ("a", "a")
    assert request.negatives == (None, None)


@pytest.mark.parametrize("prompt", [None, ""])
def test_nothing_asked_for(prompt: str | None) -> None:
    assert Request.of(prompt, None, None) == Request(("",), (None,), (None,))


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.array(0.5)[()]])
def test_numbers_of_numpy(value: Any) -> None:
    request = Request.of("a", None, value)
    assert request.seconds == (0.5,)
    assert Request.of("a", None, np.int64(2)).seconds == (2.0,)
    json.dumps(request.seconds)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([], None, None), r"prompt \[\] is not allowed"),
        (({"a": 1}, None, None), "prompt {'a': 1} is not allowed"),
        ((3, None, None), "prompt 3 is not allowed"),
        ((b"a", None, None), "is not text|is not allowed"),
        ((["a", 3], None, None), "prompt: 3 is not text"),
        ((["a", ["b"]], None, None), r"prompt: \['b'\] is not text"),
        ((["a", None, "c"], ["x", "y"], None), "negative_prompt: 2 of them for 3 prompts"),
        ((["a", "b"], None, [1, 2, 3]), "prompt: 2 of them for 3 prompts"),
        (("a", None, "1"), "duration '1' is not allowed"),
        (("a", None, True), "duration: True is not a number"),
        (("a", None, ["1"]), "duration: '1' is not a number"),
        (("a\ud800", None, None), "not valid Unicode"),
        (("a", "b\udfff", None), "not valid Unicode"),
    ],
)
def test_what_does_not_fit(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Request.of(*arguments)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # can be printed


@pytest.mark.parametrize("seconds", [0, -1, 0.009, float("nan"), float("inf"), -float("inf")])
def test_lengths_that_no_sound_has(seconds: float) -> None:
    with pytest.raises(InputError, match=r"duration .* is not allowed: seconds, at least 0.01"):
        Request.of("a", None, [1, seconds]).check(2.0)


def test_lengths_far_beyond_the_training_data() -> None:
    Request.of("a", None, BEYOND * 2.0).check(2.0)
    with pytest.raises(InputError, match=r"duration 20.1 s is far beyond the 2 s .* at most 20 s"):
        Request.of("a", None, 20.1).check(2.0)
    with pytest.raises(InputError, match="far beyond"):
        Request.of("a", None, 1e300).check(2.0)


# ------------------------------------------------------------------------------------------------------------- files


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_prompt_a_line(tmp_path: Path) -> None:
    text = "\ufeffseven\r\n\r\n  a dog, barking \n\U0001f436 שבע\n$(touch x)"
    assert read_prompts(written(tmp_path, "p.txt", text)) == {
        "prompt": ["seven", "a dog, barking", "\U0001f436 שבע", "$(touch x)"]
    }


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv(tmp_path: Path, newline: str) -> None:
    lines = ["prompt,duration,negative_prompt", "seven,0.5,noise", '"a dog, barking",,', '"say ""two""",1,', ""]
    path = written(tmp_path, "p.CSV", newline.join(lines))
    assert read_prompts(path) == {
        "prompt": ["seven", "a dog, barking", 'say "two"'],
        "duration": [0.5, None, 1.0],
        "negative_prompt": ["noise", None, None],
    }


def test_csv_of_prompts_alone_says_nothing_of_the_rest(tmp_path: Path) -> None:
    assert read_prompts(written(tmp_path, "p.csv", "prompt\nseven\ntwo\n")) == {"prompt": ["seven", "two"]}


def test_jsonl(tmp_path: Path) -> None:
    rows = [{"prompt": "seven", "duration": 1}, {"prompt": "line\u2028separator", "negative_prompt": "noise"}, {}]
    path = written(tmp_path, "p.jsonl", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert read_prompts(path) == {
        "prompt": ["seven", "line\u2028separator", ""],
        "duration": [1.0, None, None],
        "negative_prompt": [None, "noise", None],
    }


def test_a_call_takes_what_a_file_gives(tmp_path: Path) -> None:
    call = read_prompts(written(tmp_path, "p.csv", "prompt,duration\nseven,0.5\ntwo,\n"))
    request = Request.of(call["prompt"], None, call["duration"])
    assert request.seconds == (0.5, None)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", "", "holds no prompt"),
        ("p.txt", " \n\t\n", "holds no prompt"),
        ("p.csv", "", "holds no prompt"),
        ("p.csv", "prompt\n", "holds no prompt"),
        ("p.jsonl", "\n", "holds no prompt"),
        ("p.txt", b"caf\xe9", "cannot read the prompts"),
        ("p.txt", b"RIFF\x24\x00\x00\x00WAVEfmt \xff\xfe", "cannot read the prompts"),
        ("p.csv", "promt,duration\nseven,1\n", "did you mean 'prompt'"),
        ("p.csv", "seven\ntwo\n", "unknown column"),
        ("p.csv", "prompt,duration\nseven,long\n", "duration 'long' is not a number"),
        ("p.csv", "prompt,duration\na dog, barking,1\n", "more cells than its first one has names"),
        ("p.csv", 'prompt\n"' + "x" * 200_000 + '"\n', "is not CSV"),
        ("p.jsonl", '{"prompt": "seven"', "is not JSON, a line each"),
        ("p.jsonl", '["seven"]', "each line must be a JSON object"),
        ("p.jsonl", '{"promt": "seven"}', "did you mean 'prompt'"),
        ("p.jsonl", '{"prompt": "seven", "duration": [1]}', r"duration \[1\] is not a number"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_prompts(written(tmp_path, name, content))
    assert name in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(InputError, match="cannot read the prompts"):
            read_prompts(path)


def test_a_length_of_nothing_in_a_file_is_not_taken_for_none_given(tmp_path: Path) -> None:
    call = read_prompts(written(tmp_path, "p.jsonl", '{"prompt": "seven", "duration": 0}'))
    with pytest.raises(InputError, match=r"duration 0.0 is not allowed"):
        Request.of(call["prompt"], None, call["duration"]).check(1.0)
