"""Words tied to what is seen: where the heads look, what they are asked, and lessons in reading."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from multidiff.conditioning.text import NULL, TextEncoder, Vocabulary
from multidiff.state import Parts
from multidiff_video.digits import MOTIONS, NAMES, words
from multidiff_video.grounding import DIGITS, PIECES, Grounding
from multidiff_video.network import VideoUNet
from multidiff_video.reading import teach

FRAMES, SIDE = 3, 4  # in squares; a token is two by two of them


@pytest.fixture
def network() -> VideoUNet:
    torch.manual_seed(0)
    return VideoUNet(1, 9, patch=2, widths=[8], width=24, layers=3, heads=2, text_width=16, text_layers=1)


def scene(tokens: int = 2) -> Parts:
    """A digit that covers one square wholly, another that covers one by half of what is needed to be clear."""
    ink = torch.zeros(1, FRAMES, DIGITS, SIDE, SIDE)
    ink[0, 1, 7, 2, 3] = 1.0
    ink[0, 1, 4, 0, 0] = 0.03
    motions = torch.zeros(1, DIGITS, dtype=torch.int64)
    motions[0, 7] = 5
    return Parts(ink=ink, motions=motions, tokens=torch.tensor([[tokens]]))


def heard(grounding: Grounding, tokens: torch.Tensor) -> None:
    grounding._heard.update(dict.fromkeys(grounding.places, tokens))


def test_each_square_is_asked_of_the_token_that_it_is_in(network: VideoUNet) -> None:
    grounding = Grounding(network)
    for head in grounding.heads.values():
        torch.nn.init.normal_(head.weight)  # type: ignore[arg-type]
    tokens = torch.randn(2, FRAMES * (SIDE // PIECES) ** 2, 24, requires_grad=True)
    heard(grounding, tokens)
    shape = (2, FRAMES, DIGITS, SIDE, SIDE)
    said = grounding._said("which", shape)
    assert said.shape == shape
    assert said[0, 0, :, 0, 0].tolist() != said[0, 0, :, 0, 1].tolist()  # pieces of one token
    for t, y, x in ((0, 0, 0), (1, 2, 3), (2, 3, 0), (2, 1, 2)):
        (pull,) = torch.autograd.grad(said[1, t, :, y, x].sum(), tokens, retain_graph=True)
        assert pull.flatten(0, 1).any(1).nonzero().flatten().tolist() == [
            tokens.shape[1] + (t * SIDE // PIECES + y // PIECES) * (SIDE // PIECES) + x // PIECES
        ]


def test_the_losses_are_those_of_the_squares_that_are_clear(network: VideoUNet) -> None:
    grounding = Grounding(network)
    heard(grounding, torch.randn(1, FRAMES * (SIDE // PIECES) ** 2, 24))
    piece = 1  # the square (2, 3) is the upper right one of its token
    biases: Any = {name: head.bias for name, head in grounding.heads.items()}
    with torch.no_grad():
        for bias in biases.values():
            bias.zero_()
        biases["which"].view(DIGITS, PIECES**2)[7, piece] = 1.5
        biases["motion"].view(len(MOTIONS), PIECES**2)[5, piece] = 0.5
    losses = {name: float(loss.detach()) for name, loss in grounding(scene()).items()}
    right = {"which": (DIGITS, 7, 1.5), "motion": (len(MOTIONS), 5, 0.5)}
    for name, (classes, truth, lead) in right.items():
        expected = F.cross_entropy(lead * F.one_hot(torch.tensor([truth]), classes).float(), torch.tensor([truth]))
        assert losses[name] == pytest.approx(float(expected))
    assert losses["where"] == pytest.approx(float(torch.tensor(2.0).log()))  # of a head that says one half everywhere


def test_without_words_nothing_is_asked_of_motions(network: VideoUNet) -> None:
    grounding = Grounding(network)
    heard(grounding, torch.randn(1, FRAMES * (SIDE // PIECES) ** 2, 24))
    assert grounding(scene(NULL))["motion"] == 0
    assert grounding(scene())["motion"] > 0
    assert grounding(scene(NULL))["which"] > 0


def test_the_network_is_listened_to_within_and_not_after(network: VideoUNet) -> None:
    grounding = Grounding(network)
    x = torch.randn(1, FRAMES, 1, 8, 8)
    outside = network(x, torch.zeros(1))
    with grounding.listening(network):
        inside = network(x, torch.zeros(1))
        assert all(tokens.shape == (1, FRAMES * 4, 24) for tokens in grounding._heard.values())
        assert grounding._heard.keys() == grounding.places.keys()
        assert not torch.equal(grounding._heard["which"], grounding._heard["where"])
    assert torch.equal(outside, inside)
    assert not grounding._heard
    assert not any(block._forward_hooks for block in network.blocks)


def test_which_digit_has_which_motion_is_learned_from_captions() -> None:
    vocabulary = Vocabulary.of(words(), 20)

    def encoder() -> TextEncoder:
        torch.manual_seed(0)
        return TextEncoder(len(vocabulary), 128, 2, 20)

    taught, again, untaught = encoder(), encoder(), encoder()
    assert teach(taught, vocabulary, 300) > 0.95
    assert teach(encoder(), vocabulary, 1) < 0.4
    teach(again, vocabulary, 3)
    once_more = encoder()
    teach(once_more, vocabulary, 3)
    assert all(map(torch.equal, again.state_dict().values(), once_more.state_dict().values()))
    # What the rest of a network may already read is moved little.
    tokens = vocabulary.batch(["a 3 moving left", f"the number {NAMES[7]} bouncing up and down"])
    before, after = untaught(tokens), taught(tokens)
    assert float((after[0] - before[0]).square().mean()) < 0.2 * float(before[0][before[1]].var())


def test_lessons_leave_the_random_numbers_of_others_alone() -> None:
    vocabulary: Any = Vocabulary.of(words(), 20)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    teach(TextEncoder(len(vocabulary), 16, 1, 20), vocabulary, 1)  # whose own weights are drawn from them
    torch.manual_seed(3)
    encoder = TextEncoder(len(vocabulary), 16, 1, 20)
    state = torch.get_rng_state()
    teach(encoder, vocabulary, 1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), expected)
