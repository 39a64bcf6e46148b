"""The network: any length and size, a noise level a frame, given frames as they are; no weight is idle."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multidiff.conditioning.text import NULL, PAD
from multidiff.errors import InputError
from multidiff.state import Parts
from multidiff.testing.invariance import relative_error
from multidiff.transformer import rotated, turns
from multidiff_video.network import CLEAN, VideoUNet

B, T, C, SIZE = 3, 5, 1, 16
SHARED: dict[str, Any] = {"width": 48, "layers": 2, "heads": 2, "text_width": 16, "text_layers": 1, "text_longest": 6}
SHAPES: list[dict[str, Any]] = [
    {"patch": 2, "widths": (8, 16)},
    {"patch": 4, "widths": (8,)},
    {"patch": 1, "widths": (8,), "channels": 3},
]


def randomised(module: nn.Module) -> nn.Module:
    """Every weight random, the zero ones too: a network that says nothing would pass every test."""
    generator = torch.Generator().manual_seed(3)
    for weight in module.parameters():
        fan_in = weight[0].numel() if weight.dim() > 1 else 16
        nn.init.normal_(weight, std=0.7 * fan_in**-0.5, generator=generator)
    return module.eval()


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: f"patch {shape['patch']}")
def network(request: pytest.FixtureRequest) -> Any:
    return randomised(VideoUNet(**{"channels": C, "text_size": 9, **SHARED, **request.param}))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(
    network: VideoUNet, rows: tuple[int, ...] = (0, 1, 2), frames: int = T, size: tuple[int, int] = (SIZE, SIZE)
) -> tuple[Tensor, Tensor, Parts]:
    """Noisy clips, levels and conditions; each row is the same whatever is beside it."""
    channels = network.gate.out_features
    x, clean = (torch.stack([noise(frames, channels, *size, seed=shift + i) for i in rows]) for shift in (0, 100))
    tokens = torch.full((len(rows), 6), PAD)
    for k, i in enumerate(rows):
        tokens[k, : 2 + i] = torch.arange(2, 4 + i)
    known = torch.stack([torch.arange(frames) < min(i, frames - 1) for i in rows])
    return x, torch.tensor([0.7 * i - 1 for i in rows]), Parts(tokens=tokens, known=known, frames=clean)


def run(network: nn.Module, *given: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = network(*given)
    return out


def with_parts(given: tuple[Tensor, Tensor, Parts], **parts: Tensor) -> tuple[Tensor, Tensor, Parts]:
    return given[0], given[1], Parts({**given[2], **parts})


# ------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_any_length_and_size(network: VideoUNet, frames: int, size: tuple[int, int]) -> None:
    given = batch(network, frames=frames, size=size)
    out = run(network, *given)
    assert out.shape == given[0].shape
    assert out.isfinite().all()


def test_alone_and_in_a_batch(network: VideoUNet) -> None:
    together = run(network, *batch(network))
    for i in range(B):
        assert relative_error(run(network, *batch(network, (i,)))[0], together[i]) < 1e-5
    turned = run(network, *batch(network, (2, 0, 1)))
    assert relative_error(turned, together[[2, 0, 1]]) < 1e-5


def test_how_far_prompts_are_padded_changes_nothing(network: VideoUNet) -> None:
    given = batch(network)
    short = with_parts(given, tokens=given[2]["tokens"][:, :4])
    assert relative_error(run(network, *short), run(network, *given)) < 1e-5


# -------------------------------------------------------------------------------------------------------- noise levels


def test_one_level_is_the_same_for_every_frame(network: VideoUNet) -> None:
    x, level, cond = batch(network)
    assert torch.equal(run(network, x, level, cond), run(network, x, level[:, None].expand(-1, T), cond))


def test_the_level_of_each_frame_counts(network: VideoUNet) -> None:
    x, level, cond = batch(network, (0,))
    plain = run(network, x, level, cond)
    for frame in range(T):
        levels = level[:, None].repeat(1, T)
        levels[:, frame] += 1.5
        away = (run(network, x, levels, cond) - plain).square().mean((0, 2, 3, 4)).sqrt() / plain.square().mean().sqrt()
        assert float(away[frame]) > 1e-2
        assert int(away.argmax()) == frame  # most of all in the frame itself
        assert bool((away > 1e-5).all())  # and the others see it


# -------------------------------------------------------------------------------------------------------- given frames


def test_what_noise_covers_a_given_frame_changes_nothing(network: VideoUNet) -> None:
    x, level, cond = batch(network)
    known = cond["known"]
    other = torch.where(known[..., None, None, None], noise(*x.shape, seed=9), x)
    levels = level[:, None].repeat(1, T)
    out = run(network, x, levels, cond)
    assert torch.equal(run(network, other, levels, cond), out)
    assert torch.equal(run(network, x, levels.masked_fill(known, -7.0), cond), out)


def test_what_stands_where_nothing_is_given_changes_nothing(network: VideoUNet) -> None:
    given = batch(network)
    known = given[2]["known"][..., None, None, None]
    dirty = torch.where(known, given[2]["frames"], 7.0)
    assert torch.equal(run(network, *with_parts(given, frames=dirty)), run(network, *given))


def test_a_given_frame_counts_for_all_others(network: VideoUNet) -> None:
    x, level, cond = batch(network, (1,))
    plain = run(network, x, level, cond)
    other = cond["frames"].clone()
    other[:, 0] = noise(*other[:, 0].shape, seed=50)
    away = (run(network, x, level, Parts({**cond, "frames": other})) - plain).square().mean((0, 2, 3, 4)).sqrt()
    assert bool((away[1:] > 1e-4).all())


def test_given_is_more_than_clean(network: VideoUNet) -> None:
    """A given frame is marked as one: at the end of sampling the others are clean too, and not given."""
    x, level, cond = batch(network, (1,))
    levels = level[:, None].repeat(1, T)
    levels[:, 0] = CLEAN
    clean = x.clone()
    clean[:, 0] = cond["frames"][:, 0]
    unmarked = run(network, clean, levels, Parts(tokens=cond["tokens"]))
    assert relative_error(run(network, x, level, cond)[:, 1:], unmarked[:, 1:]) > 1e-3


def test_the_condition_of_nothing_is_none(network: VideoUNet) -> None:
    x, level, cond = batch(network)
    tokens = torch.full_like(cond["tokens"], PAD)
    tokens[:, 0] = NULL
    none = run(network, x, level)
    nothing = Parts(tokens=tokens, known=torch.zeros_like(cond["known"]), frames=cond["frames"])
    assert relative_error(run(network, x, level, nothing), none) < 1e-5
    assert relative_error(run(network, x, level, Parts(tokens=tokens)), none) < 1e-5
    assert relative_error(run(network, x, level, cond), none) > 0.01


# ------------------------------------------------------------------------------------------------------ words and time


def test_words_and_their_order_count(network: VideoUNet) -> None:
    """Left then right is not right then left."""
    x, level, _ = batch(network)
    said = [[2, 3, 4, PAD], [4, 3, 2, PAD], [2, 3, 5, PAD], [2, 3, PAD, PAD]]
    made = [run(network, x, level, Parts(tokens=torch.tensor([tokens] * B))) for tokens in said]
    for other in made[1:]:
        assert relative_error(other, made[0]) > 1e-3


def test_time_has_a_direction(network: VideoUNet) -> None:
    x, level, _ = batch(network)
    assert relative_error(run(network, x.flip(1), level).flip(1), run(network, x, level)) > 1e-3


def test_a_frame_sees_those_before_and_after_it(network: VideoUNet) -> None:
    x, level, cond = batch(network, (0,))
    plain = run(network, x, level, cond)
    for frame in (0, T - 1):
        other = x.clone()
        other[:, frame] += noise(*x[:, frame].shape, seed=8)
        away = (run(network, other, level, cond) - plain).square().mean((0, 2, 3, 4))
        assert bool((away > 1e-8).all())


def test_attention_sees_how_far_apart_places_are_in_time_and_space() -> None:
    """Rotary positions over three axes: a product of two depends on their distance along each alone."""
    shape = (6, 3, 4)
    turn = turns(shape, 24, torch.device("cpu"))
    q, k = (rotated(noise(24, seed=s).expand(turn.shape[0], 24), turn) for s in (1, 2))
    products = (q @ k.T).reshape(*shape, *shape)
    for away in ((0, 0, 0), (2, 0, 0), (0, 1, 0), (0, 0, 3), (1, 2, 1)):
        rows = [
            products[t, y, x, t + away[0], y + away[1], x + away[2]]
            for t in range(shape[0] - away[0])
            for y in range(shape[1] - away[1])
            for x in range(shape[2] - away[2])
        ]
        torch.testing.assert_close(torch.stack(rows), rows[0].expand(len(rows)), rtol=1e-4, atol=1e-4)
    origin = products[0, 0, 0].flatten()
    assert len(origin.round(decimals=3).unique()) > 0.9 * len(origin)  # and tells nearly all distances apart


def test_time_is_relative() -> None:
    """What attention and time see of a clip is the same later: frames far from both ends of a longer clip that repeats
    itself repeat themselves too, up to what the ends are felt."""
    network = randomised(VideoUNet(C, 9, patch=2, widths=(8,), **SHARED))
    period = noise(1, 2, C, SIZE, SIZE)
    errors = []
    for repeats in (4, 16):
        out = run(network, period.repeat(1, repeats, 1, 1, 1), torch.zeros(1))
        middle = repeats  # of 2 * repeats frames
        errors.append(relative_error(out[:, middle : middle + 2], out[:, middle - 2 : middle]))
    assert errors[1] < 0.5 * errors[0] + 1e-4


# ------------------------------------------------------------------------------------------------------------ training


def test_every_weight_is_trained(network: VideoUNet) -> None:
    network.zero_grad()
    x, level, cond = batch(network)
    network(x, level, cond).square().sum().backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []
    assert all(weight.grad.isfinite().all() for weight in network.parameters() if weight.grad is not None)
    network.zero_grad()


def test_a_new_network_says_nothing(network: VideoUNet) -> None:
    """Training starts from the mean of the data, not from noise of the weights."""
    new = VideoUNet(C, 9, patch=2, widths=(8,), **SHARED)
    x, level, cond = batch(new)
    assert not run(new, x, level, cond).any()


def test_bfloat16_is_finite_and_near(network: VideoUNet) -> None:
    given = batch(network)
    full = run(network, *given)
    with torch.autocast("cpu", torch.bfloat16):
        half = run(network, *given)
    assert half.dtype == torch.float32
    assert float((half - full).norm() / full.norm()) < 0.1
    for extreme in (-12.0, 12.0):  # both ends of the noise
        with torch.autocast("cpu", torch.bfloat16):
            assert run(network, given[0], torch.full((B,), extreme), given[2]).isfinite().all()


@pytest.mark.parametrize(
    "wrong", [{"widths": ()}, {"patch": 0}, {"width": 50}, {"heads": 0}, {"width": 24, "heads": 3}], ids=str
)
def test_sizes_that_do_not_go_together(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a video network needs") as caught:
        VideoUNet(**{"channels": C, "text_size": 9, **SHARED, **SHAPES[0], **wrong})
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- memory

MEASURE = """
import json, sys, torch
from multidiff.state import Parts
from multidiff_video.network import VideoUNet, peak_bytes

def status(key):  # ru_maxrss would begin at the peak of whoever started this process
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])

torch.set_num_threads(1)
spec, shape, samples = map(json.loads, sys.argv[1:])
network = VideoUNet(shape[1], 40, **spec).eval()
tokens, known = torch.full((samples, 4), 2), torch.zeros(samples, shape[0], dtype=torch.bool)
small, x = torch.randn(samples, 1, shape[1], 32, 32), torch.randn(samples, *shape)
with torch.inference_mode():
    network(small, torch.zeros(samples), Parts(tokens=tokens))
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = status("VmRSS")
    network(x, torch.zeros(samples), Parts(tokens=tokens, known=known, frames=x))
print(status("VmHWM") - before, peak_bytes(network, shape, samples))
"""
RECIPE = {"patch": 4, "widths": [32, 64], "depths": [1, 2], "width": 192, "layers": 1, "heads": 4}
WIDE = {"patch": 2, "widths": [16, 48], "width": 48, "layers": 1, "heads": 2}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is counted otherwise")
@pytest.mark.parametrize("spec", [RECIPE, WIDE], ids=["recipe", "wide"])
@pytest.mark.parametrize(("shape", "samples"), [([16, 1, 256, 256], 1), ([32, 3, 128, 128], 1)])
def test_the_memory_that_is_said_is_what_it_takes(spec: dict[str, Any], shape: list[int], samples: int) -> None:
    arguments = [json.dumps(value) for value in (spec, shape, samples)]
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
    measured, said = map(int, done.stdout.split())
    assert said / 2 < measured < 2 * said
