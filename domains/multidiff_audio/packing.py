"""From sound files to packed clips: every file is brought to one rate, number of channels and level."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff_audio import captions, sound, templates
from multidiff_audio.captions import Row, Table
from multidiff_audio.clips import TRAIN, VALIDATION, Attribute, PackedClips
from multidiff_audio.sound import Sound
from multidiff_audio.sources import Sources

LABEL = "label"
"""The attribute and the column that hold the name of a file's folder."""
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


@dataclass
class Account:
    """What became of the files.

    Attributes:
        skipped: reason -> messages.
        notes: what was done to clips that are kept, or is odd about their files -> how many files.
        rates: Hz -> files.
    """

    files: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    rates: Counter[int] = field(default_factory=Counter)

    def skip(self, reason: str, message: str) -> None:
        """Count a file that is not kept."""
        self.skipped.setdefault(reason, []).append(message)

    @property
    def lost(self) -> int:
        """Files that gave nothing."""
        return sum(map(len, self.skipped.values()))


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
        table = _by_folder(sources.sounds)
    names = rules.attributes if rules.attributes is not None else ((LABEL,) if labelled and table.columns else ())
    for name in names:
        table.checked(name, "--attributes")
    if phrasings:
        phrasings.check(table)
    rows, missing = captions.matched(table, sources.sounds)
    if not rows and not labelled:
        raise InputError(
            f"none of the {len(missing):,} files that the captions name is in {sources.path} (the first: "
            f"{missing[0]}); names are relative to the folder of the table; --captions none does without"
        )
    account = Account(files=len(sources.sounds) + len(sources.refused))
    for name, why in sources.refused:
        account.skip("not readable", f"{name}: {why}")
    splits = _splits(sources.sounds, rows, rules.validation)
    rate = rules.rate or _commonest_rate(sources, rules.min_seconds)
    pieces: list[NDArray[np.int16]] = []
    owners: list[str] = []
    for name, clip in _clips(sources, rate, rules, account, bar):
        pieces.append(clip)
        owners.append(name)
    if not pieces:
        raise InputError(_nothing(sources, account))
    return _joined(pieces, owners, rate, rows, splits, names, phrasings), account, missing


def _by_folder(names: Sequence[str]) -> Table:
    """The table that folders stand for: dogs/x.wav is captioned "dogs"."""
    rows = {}
    for name in names:
        label = PurePosixPath(name).parent.name
        if label and label.lower() not in captions.SPLITS:
            rows[name] = Row((" ".join(label.replace("_", " ").split()),), {LABEL: label})
    return Table(rows, (LABEL,) if rows else ())


def _splits(names: Sequence[str], rows: dict[str, Row], share: float) -> dict[str, int]:
    """File -> its split: of its row, or else of a folder of that name, or else training."""
    splits = {}
    for name in names:
        said = rows[name].fields.get("split", "") if name in rows else ""
        folders = [p.lower() for p in PurePosixPath(name).parent.parts if p.lower() in captions.SPLITS]
        splits[name] = captions.split_of(said or (folders[0] if folders else "train"), name)
    if VALIDATION not in splits.values():
        for name, split in splits.items():
            if split == TRAIN and chance(name) < share:
                splits[name] = VALIDATION
    return splits


def chance(name: str) -> float:
    """A number in [0, 1) that follows from a file's name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _commonest_rate(sources: Sources, least: float) -> int:
    """Of the files that claim to be at least so many seconds long; the highest of several."""
    counts: Counter[int] = Counter()
    for _, content in sources.contents(sources.sounds):
        if not isinstance(content, InputError):
            rate, seconds = sound.header(content)
            counts[rate if seconds >= least else 0] += 1
    known = [(n, rate) for rate, n in counts.items() if sound.RATES[0] <= rate <= sound.RATES[1]]
    return max(known)[1] if known else 16_000


def _clips(
    sources: Sources, rate: int, rules: Rules, account: Account, bar: object
) -> Iterator[tuple[str, NDArray[np.int16]]]:
    for name, content in sources.contents(sources.sounds):
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


def _nothing(sources: Sources, account: Account) -> str:
    reasons = "; ".join(f"{reason}: {len(files):,} ({files[0]})" for reason, files in account.skipped.items())
    return f"no sound in {sources.path} could be used; {reasons}"


def table_of(sources: Sources, named: Path | None) -> Table:
    """The rows of the table that the user names, or else of those that lie with the sounds.

    Raises:
        InputError: a table cannot be read.
    """
    if named is not None:
        return captions.parse(_bytes(named, str(named)), named.name)
    found = dict(sources.contents(sources.tables))
    table = Table()
    for name in sources.tables:
        table = table.joined(_placed(captions.parse(_bytes(found[name], name), name), name, sources.sounds))
    return table


def _bytes(content: Path | bytes | InputError, name: str) -> bytes:
    if isinstance(content, InputError):
        raise content
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the captions {name}: {error.strerror or error}") from None


def _placed(table: Table, name: str, sounds: Sequence[str]) -> Table:
    """Names relative to the table's own folder, unless they are the sounds' own already."""
    folder, known = PurePosixPath(name).parent, set(sounds)
    rows = {}
    for file, row in table.rows.items():
        below = str(folder / file)
        rows[file if file in known and below not in known else below] = row
    return Table(rows, table.columns, table.left_out)
