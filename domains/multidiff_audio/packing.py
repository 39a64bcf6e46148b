"""From sound files to packed clips: every file is brought to one rate, number of channels and level."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multidiff import captions
from multidiff.account import Account
from multidiff.captions import LABEL, Row, Table
from multidiff.errors import InputError
from multidiff.sources import Sources
from multidiff_audio import sound, templates
from multidiff_audio.clips import Attribute, PackedClips
from multidiff_audio.sound import Sound

SILENT = -80.0
"""dB: a clip whose every sample, without the mean, is below it is silent; three steps of 16 bits."""
PEAK = 10 ** (-0.1 / 20)
"""The largest amplitude after a change of level."""

_MARGIN = 0.01  # seconds left at either end of what is trimmed


@dataclass(frozen=True)
class Rules:
    """What is done to each file; see `prepare`.

    Attributes:
        rate: Hz; None for the most frequent one.
        channels: 1 or 2.
        attributes: columns kept as classes; None for the folder's name where it is the caption.
        max_seconds, min_seconds: of a clip; what is longer is cut into equal pieces, what is shorter is skipped.
        trim: dB below the peak that is cut from both ends; None keeps them.
        level: dB of full scale of each clip's root mean square; None keeps it.
        validation: share of the clips, where no split names validation.
    """

    rate: int | None = None
    channels: int = 1
    attributes: tuple[str, ...] | None = None
    max_seconds: float = 30.0
    min_seconds: float = 0.1
    trim: float | None = None
    level: float | None = -23.0
    validation: float = 0.05


def pack(
    sources: Sources, table: Table, rules: Rules, phrasings: templates.Templates | None, bar: object = None
) -> tuple[PackedClips, Account, list[str]]:
    """Read all files.

    Returns:
        The clips, the account, and the names in the table that fit no file.

    Raises:
        InputError: a column or a split is unknown, or no file could be used.
    """
    labelled = not table.rows
    if labelled:
        table = captions.by_folder(sources.files)
    names = rules.attributes if rules.attributes is not None else ((LABEL,) if labelled and table.columns else ())
    for name in names:
        table.checked(name, "--attributes")
    if phrasings:
        phrasings.check(table)
    rows, missing = captions.matched(table, sources.files)
    if not rows and not labelled:
        raise InputError(
            f"none of the {len(missing):,} files that the captions name is in {sources.path} (the first: "
            f"{missing[0]}); names are relative to the folder of the table; --captions none does without"
        )
    account = Account(files=len(sources.files) + len(sources.refused))
    for name, why in sources.refused:
        account.skip("not readable", f"{name}: {why}")
    splits = captions.splits(sources.files, rows, rules.validation)
    rate = rules.rate or _commonest_rate(sources, rules.min_seconds)
    pieces: list[NDArray[np.int16]] = []
    owners: list[str] = []
    for name, clip in _clips(sources, rate, rules, account, bar):
        pieces.append(clip)
        owners.append(name)
    if not pieces:
        raise InputError(f"no sound in {sources.path} could be used; {account.nothing()}")
    return _joined(pieces, owners, rate, rows, splits, names, phrasings), account, missing


def _commonest_rate(sources: Sources, least: float) -> int:
    """Of the files that claim to be at least so many seconds long; the highest of several."""
    counts: Counter[int] = Counter()
    for _, content in sources.contents(sources.files):
        if not isinstance(content, InputError):
            rate, seconds = sound.header(content)
            counts[rate if seconds >= least else 0] += 1
    known = [(n, rate) for rate, n in counts.items() if sound.RATES[0] <= rate <= sound.RATES[1]]
    return max(known)[1] if known else 16_000


def _clips(
    sources: Sources, rate: int, rules: Rules, account: Account, bar: object
) -> Iterator[tuple[str, NDArray[np.int16]]]:
    for name, content in sources.contents(sources.files):
        try:
            if isinstance(content, InputError):
                raise content
            reading = sound.load(content, name)
            clips, notes = clips_of(reading, rate, rules)
        except InputError as error:
            account.skip("not readable", str(error))
        else:
            if clips:
                account.rates[reading.rate] += 1
                account.notes.update(notes)
                yield from ((name, clip) for clip in clips)
            else:
                account.skip(notes[-1], name)
        if bar is not None:
            bar.update(1)  # type: ignore[attr-defined]


def clips_of(reading: sound.Reading, rate: int, rules: Rules) -> tuple[list[NDArray[np.int16]], list[str]]:
    """A file as clips of (samples, channels), and notes; without a clip the last note says why."""
    notes, heard = list(reading.notes), reading.sound
    if silent(heard):
        return [], ["silent"]
    if rules.trim is not None:
        heard = trimmed(heard, reading.rate, rules.trim)
    if heard.shape[0] != rules.channels:
        heard = sound.mix(heard, rules.channels)
        count = f"{reading.sound.shape[0]} channel{'s' if reading.sound.shape[0] > 1 else ''}"
        notes.append(f"{count} mixed to {'mono' if rules.channels == 1 else 'stereo'}")
    if reading.rate != rate:
        notes.append("resampled")
        heard = sound.resample(heard, reading.rate, rate)
    if heard.shape[1] < rules.min_seconds * rate:
        return [], [f"shorter than {rules.min_seconds:g} s"]
    count = math.ceil(heard.shape[1] / (rules.max_seconds * rate))
    pieces = [piece for piece in np.array_split(heard, count, axis=1) if not silent(piece)]
    if not pieces:
        return [], ["silent"]
    if count > 1:
        notes.append("cut into pieces")
    if len(pieces) < count:
        notes.append("silent pieces left out")
    levels = [levelled(sound.remove_dc(piece), rules.level) for piece in pieces]
    notes += ["quieter than asked, for its peak"] if any(limited for _, limited in levels) else []
    return [_whole(piece) for piece, _ in levels], notes


def silent(clip: Sound) -> bool:
    """Whether no sample stands out from the mean of its channel."""
    return sound.peak(sound.remove_dc(clip)) < 10 ** (SILENT / 20)


def trimmed(clip: Sound, rate: int, below: float) -> Sound:
    """Without what is more than `below` dB under the peak at either end, but for 10 ms of it."""
    # The median is the zero line both of what has an offset and of what was filled up with digital silence.
    amplitude = np.abs(clip - np.median(clip, axis=1, keepdims=True)).max(0)
    loud = np.flatnonzero(amplitude > amplitude.max() * 10 ** (-below / 20))
    if not len(loud):
        return clip
    margin = round(_MARGIN * rate)
    return clip[:, max(0, loud[0] - margin) : loud[-1] + 1 + margin]


def levelled(clip: Sound, target: float | None) -> tuple[Sound, bool]:
    """At a root mean square of `target` dB, or as near as its peak allows; and whether the peak was in the way."""
    most = PEAK / sound.peak(clip)
    if target is None:
        return (clip * np.float32(most), True) if most < PEAK else (clip, False)
    gain = 10 ** ((target - sound.level(clip)) / 20)
    return clip * np.float32(min(gain, most)), gain > most


def _whole(clip: Sound) -> NDArray[np.int16]:
    return np.clip(np.round(clip.T * 32768.0), -32768, 32767).astype(np.int16)


def _joined(
    pieces: list[NDArray[np.int16]],
    owners: list[str],
    rate: int,
    rows: dict[str, Row],
    splits: dict[str, int],
    names: Sequence[str],
    phrasings: templates.Templates | None,
) -> PackedClips:
    said = {name: phrasings.fill(row.fields) if phrasings else row.captions for name, row in rows.items()}
    none = Row((), {})
    attributes = {key: _attribute(key, [rows.get(n, none).fields.get(key, "") for n in owners]) for key in names}
    return PackedClips(
        audio=np.concatenate(pieces),
        offsets=np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64),
        rate=rate,
        captions=[said.get(name, ()) for name in owners],
        attributes=attributes,
        split=np.array([splits[name] for name in owners], np.int8),
        sources=owners,
    )


def _attribute(name: str, values: Sequence[str]) -> Attribute:
    classes = sorted({value for value in values if value})
    if len(classes) > np.iinfo(np.int16).max:
        raise InputError(f"--attributes: {name} has {len(classes):,} values, which are no classes; at most 32,767")
    number = {value: i for i, value in enumerate(classes)}
    return Attribute(tuple(classes), np.array([number.get(value, -1) for value in values], np.int16))
