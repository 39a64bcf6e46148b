"""Likeness of sounds and words by a CLAP network (Wu et al. 2023), where the user has one, through `transformers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from multidiff.captions import TEST
from multidiff.errors import InputError
from multidiff_audio.clips import PackedClips
from multidiff_audio.judge import Sounds
from multidiff_audio.metrics import Array, frechet_distance
from multidiff_audio.real import FEWEST
from multidiff_audio.sound import mix, resample

_AT_ONCE = 16
MOST = 1000  # real clips that are heard


@dataclass(frozen=True, eq=False)
class Clap:
    """A network of `transformers.ClapModel` and what prepares sounds and words for it."""

    model: Any
    extract: Any
    tokenize: Any

    @classmethod
    def load(cls, name: str | Path) -> Clap:
        """From a folder that `save_pretrained` wrote, or a name at the Hugging Face hub; safetensors only.

        Raises:
            InputError: `transformers` is not installed, or the network cannot be had.
        """
        try:
            from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel
        except ImportError:
            raise InputError("--clap needs the package transformers: pip install transformers") from None
        try:
            model = ClapModel.from_pretrained(name, use_safetensors=True).eval()
            return cls(model, ClapFeatureExtractor.from_pretrained(name), AutoTokenizer.from_pretrained(name))
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"no CLAP network at {name}: {reason}") from error

    def hear(self, sounds: Sounds, rate: int) -> Array:
        """(n, d) of norm 1; sounds are resampled to the network's rate."""
        to = int(self.extract.sampling_rate)
        mono = [resample(mix(np.asarray(s, np.float32), 1), rate, to)[0] for s in sounds]

        def embed(some: Sequence[Any]) -> Any:
            return self.model.get_audio_features(**self.extract(list(some), sampling_rate=to, return_tensors="pt"))

        return _embedded(mono, embed)

    def read(self, texts: Sequence[str]) -> Array:
        """(n, d) of norm 1."""

        def embed(some: Sequence[Any]) -> Any:
            return self.model.get_text_features(**self.tokenize(list(some), padding=True, return_tensors="pt"))

        return _embedded(texts, embed)

    def figures(self, sounds: Sounds, rate: int, prompts: Sequence[str], clips: PackedClips | None) -> dict[str, Any]:
        """``clap/score``: mean cosine of each sound and its prompt, ``real``: of test clips and their captions;
        ``clap/frechet``: Fréchet distance to test clips, ``real``: of their even to their odd half.

        A network's window is longer than most sounds, which are repeated or padded as its settings say.
        """
        rows = [i for i, s in enumerate(sounds) if s.size and np.isfinite(s).all()]
        mine = self.hear([sounds[i] for i in rows], rate)
        found = _score("clap/score", mine, [prompts[i] for i in rows], self.read)
        if clips is None:
            return found
        known = clips.rows(TEST) if len(clips.rows(TEST)) else np.arange(len(clips))
        known = known[:: -(-len(known) // MOST)]
        theirs = self.hear([clips.sound(int(i)) for i in known], clips.rate)
        captions = [(clips.captions[int(i)] or ("",))[0] for i in known]
        real = _score("clap/score", theirs, captions, self.read)
        if real and found:
            found["clap/score/real"] = real["clap/score"]
        n = min(len(mine), len(theirs))
        if n >= FEWEST:
            found |= {"clap/frechet": frechet_distance(mine, theirs), "clap/frechet/n": len(mine)}
            found |= {"clap/frechet/real": frechet_distance(theirs[::2], theirs[1::2])}
        return found


def _score(name: str, heard: Array, texts: Sequence[str], read: Callable[[Sequence[str]], Array]) -> dict[str, Any]:
    said = [i for i, text in enumerate(texts) if text]
    if not said:
        return {}
    cosine = (heard[said] * read([texts[i] for i in said])).sum(1)
    return {name: float(cosine.mean()), f"{name}/n": len(said)}


def _embedded(items: Sequence[Any], embed: Callable[[Sequence[Any]], Any]) -> Array:
    parts: list[Tensor] = []
    for start in tqdm(range(0, len(items), _AT_ONCE), "CLAP", disable=None, delay=2):
        with torch.inference_mode():
            made = embed(items[start : start + _AT_ONCE])
        found = made if isinstance(made, Tensor) else made.pooler_output  # transformers 5 wraps it
        parts.append(torch.nn.functional.normalize(found.double(), dim=-1))
    return torch.cat(parts).numpy() if parts else np.zeros((0, 1))
