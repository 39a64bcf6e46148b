"""Prompts: what counts as a word, what a vocabulary says of those it does not know, and a padded encoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from multidiff.conditioning.text import LONGEST_PROMPT, NULL, PAD, TextEncoder, Vocabulary, words
from multidiff.errors import InputError
from multidiff.testing.invariance import relative_error

CAPTIONS = ("Seven, spoken by Théo!", "a dog barks", "the number 7", "left then right")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Seven, spoken by Théo!", ["seven", "spoken", "by", "theo"]),
        ("  a\tdog\n\nbarks  ", ["a", "dog", "barks"]),
        ("snake_case rock'n'roll 3rd", ["snake", "case", "rock", "n", "roll", "3rd"]),
        ("", []),
        ("?!... --- \U0001f436\U0001f3b5", []),
        ("Ｓｅｖｅｎ ﬁve", ["seven", "five"]),  # full width, ligature
        ("STRASSE İstanbul ÅNGSTRÖM", ["strasse", "istanbul", "angstrom"]),
        ("שבע سبعة семь 七", ["שבע", "سبعة", "семь", "七"]),
        ("se\u202even one\x00two", ["se", "ven", "one", "two"]),
        ("$(touch x); ../y", ["touch", "x", "y"]),
    ],
)
def test_words(text: str, said: list[str]) -> None:
    assert words(text) == said


def test_words_of_words_are_the_same() -> None:
    for text in (*CAPTIONS, "ﬁve İstanbul ½ Ǆ ſ"):
        assert words(" ".join(words(text))) == words(text)


def test_every_word_has_a_number_of_its_own() -> None:
    known = Vocabulary.of(CAPTIONS)
    numbers = [known.encode(word).tokens for word in known.known]
    assert all(len(number) == 1 for number in numbers)
    assert sorted(number[0] for number in numbers) == list(range(2, len(known)))
    assert {PAD, NULL} == {0, 1}


def test_the_order_of_the_captions_does_not_matter() -> None:
    assert Vocabulary.of(CAPTIONS) == Vocabulary.of(CAPTIONS[::-1])


def test_the_commonest_words_are_kept() -> None:
    assert Vocabulary.of(["a b c", "b c", "c"], most=2).known == ("b", "c")


def test_what_is_not_known_is_named_once_and_left_out() -> None:
    known = Vocabulary.of(CAPTIONS)
    encoded = known.encode("Wolf seven wolf, GROWLS by the dog")
    assert encoded.unknown == ["wolf", "growls"]
    assert encoded.tokens == known.encode("seven by the dog").tokens
    assert encoded.cut == []


def test_what_is_too_much_is_cut_and_named() -> None:
    known = Vocabulary.of(CAPTIONS, longest=3)
    encoded = known.encode("seven zzz spoken by theo the dog")
    assert encoded.tokens == known.encode("seven spoken by").tokens
    assert (encoded.cut, encoded.unknown) == (["theo", "the", "dog"], ["zzz"])


@pytest.mark.parametrize("text", ["", "   ", "\x00", "\U0001f436", "wolf growls", "\u200f\u202e"])
def test_nothing_that_is_known_is_no_prompt(text: str) -> None:
    known = Vocabulary.of(CAPTIONS)
    assert known.encode(text).tokens == [NULL]
    assert torch.equal(known.batch([text]), known.batch([""]))


def test_no_words_at_all() -> None:
    empty = Vocabulary(())
    assert len(empty) == 2
    assert empty.encode("seven") == ([NULL], ["seven"], [])


def test_a_long_prompt() -> None:
    known = Vocabulary.of(CAPTIONS, longest=4)
    assert len(known.encode("dog " * (LONGEST_PROMPT // 4)).tokens) == 4
    with pytest.raises(InputError, match=f"{LONGEST_PROMPT + 1} characters is too long: at most {LONGEST_PROMPT}"):
        known.encode("x" * (LONGEST_PROMPT + 1))


def test_a_batch() -> None:
    known = Vocabulary.of(CAPTIONS, longest=5)
    tokens = known.batch(["a dog barks", "", "seven seven seven seven seven seven seven"])
    assert tokens.shape == (3, 5)
    assert tokens.dtype == torch.int64
    assert tokens[0].tolist() == [*known.encode("a dog barks").tokens, PAD, PAD]
    assert tokens[1].tolist() == [NULL, PAD, PAD, PAD, PAD]
    assert (tokens[2] == tokens[2, 0]).all()
    assert known.batch([]).shape == (0, 5)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    made = TextEncoder(size=12, width=16, layers=2, longest=8, heads=2)
    generator = torch.Generator().manual_seed(0)
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3, generator=generator)
    return made.eval()


def run(encoder: TextEncoder, *rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.full((len(rows), max(map(len, rows))), PAD)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    with torch.no_grad():
        return encoder(tokens)


@pytest.mark.parametrize("training", [False, True])
def test_padding_and_neighbours_change_nothing(encoder: TextEncoder, training: bool) -> None:
    encoder.train(training)  # PyTorch has another path for evaluation
    prompts = [[5], [2, 3, 4, 5, 6], [NULL], [7, 7, 2]]
    out, there, mean = run(encoder, *prompts, [2] * 8)
    for i, prompt in enumerate(prompts):
        alone, _, alone_mean = run(encoder, prompt)
        assert relative_error(out[i, : len(prompt)], alone[0]) < 1e-5
        assert relative_error(mean[i], alone_mean[0]) < 1e-5
        assert not out[i, len(prompt) :].any()
        assert there[i].tolist() == [True] * len(prompt) + [False] * (8 - len(prompt))
        torch.testing.assert_close(alone.mean(1), alone_mean)
    encoder.eval()


def test_both_paths_agree(encoder: TextEncoder) -> None:
    prompts = [[5], [2, 3, 4, 5, 6]]
    fast = run(encoder, *prompts)
    slow = run(encoder.train(), *prompts)
    encoder.eval()
    assert relative_error(fast[0], slow[0]) < 1e-5


def test_words_and_their_order_matter(encoder: TextEncoder) -> None:
    means = [run(encoder, prompt)[2][0] for prompt in ([2, 3, 4], [4, 3, 2], [2, 3], [2, 2, 3, 4], [NULL])]
    for i, one in enumerate(means):
        for other in means[i + 1 :]:
            assert relative_error(one, other) > 1e-2


def test_every_weight_is_trained(encoder: TextEncoder) -> None:
    encoder.zero_grad()
    out, _, mean = encoder(torch.tensor([[2, 3, 4, 5, 6, 7, 8, 9], [10, 11, NULL, PAD, PAD, PAD, PAD, PAD]]))
    (out.pow(3).sum() + mean.pow(3).sum()).backward()
    rows = encoder.words.weight.grad
    assert rows is not None
    assert rows.any(1).tolist() == [False] + [True] * 11  # all but the padding
    assert all(weight.grad is not None and weight.grad.any() for weight in encoder.parameters())
