"""`multidiff prepare audio INPUT OUTPUT`: sound files and what is said of them to one packed data set."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from multidiff.account import Account, few
from multidiff.captions import Table
from multidiff.errors import InputError
from multidiff.files import writable_folder
from multidiff.sources import table_of
from multidiff_audio import packing, sources, templates
from multidiff_audio.clips import PackedClips
from multidiff_audio.packing import Rules
from multidiff_audio.sound import RATES

SPLITS = ("train", "validation", "test")


def prepare(
    input: str | Path,
    output: str | Path,
    *,
    rate: int | None = None,
    channels: int = 1,
    captions: str | Path | None = None,
    templates: str | Path | None = None,
    attributes: str | Sequence[str] | None = None,
    max_seconds: float = 30.0,
    min_seconds: float = 0.1,
    trim: float | str | None = None,
    level: float | str | None = -23.0,
    validation: float = 0.05,
) -> str:
    """Pack the sounds of `input` into the file `output`, and tell what became of each.

    Captions come from tables that lie with the sounds (`captions.NAMES`), from the one named, or, without any, from the
    names of folders; a column "split", or else folders of these names, tell train, validation and test apart. A file
    that cannot be used is skipped and named. An offset (DC) is always removed.

    Args:
        input: folder (searched through), archive (.tar, .tar.gz, .zip), or one sound file.
        output: the `.npz` to write.
        rate: Hz; by default the most frequent one.
        channels: 1 or 2.
        captions: a table, CSV or JSON lines; "none" for no captions but the folders' names.
        templates: a file of phrasings, see `multidiff_audio.templates`.
        attributes: columns kept as classes, "word,speaker" or a sequence; by default the folder's name, as "label",
            where that is the caption.
        max_seconds: longer sounds are cut into equal pieces no longer than this.
        min_seconds: shorter ones are skipped.
        trim: dB below the peak that is cut from both ends; None or "none" cuts nothing.
        level: dB of full scale to which each clip's root mean square is brought, as far as its peak allows; None or
            "none" keeps it.
        validation: share of the training files, where no split names validation; by a hash of the file's name.

    Returns:
        The report.

    Raises:
        InputError: an option is wrong, nothing in `input` could be used, or `output` cannot be written.
    """
    rules = Rules(
        rate=rate,
        channels=channels,
        attributes=_listed(attributes),
        max_seconds=max_seconds,
        min_seconds=min_seconds,
        trim=_decibels("--trim", trim),
        level=_decibels("--level", level),
        validation=validation,
    )
    _check(rules)
    target = Path(output)
    _check_output(target)
    clips, report = _packed(Path(input), rules, captions, templates)
    clips.save(target)
    return f"{report}\nwritten: {target}"


def load_or_pack(
    path: str | Path,
    rate: int | None = None,
    channels: int = 1,
    captions: str | Path | None = None,
    templates: str | Path | None = None,
) -> PackedClips:
    """A data set for training: a packed file as it is, or a folder, archive or sound file packed in memory.

    The report of what was packed goes to stderr.

    Raises:
        InputError: see `prepare`.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz" and not path.is_dir():
        return PackedClips.load(path)
    rules = Rules(rate=rate, channels=channels)
    _check(rules)
    clips, report = _packed(path, rules, captions, templates)
    print(report, file=sys.stderr)
    return clips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `multidiff prepare audio`, named as the keywords of `prepare`."""
    add = parser.add_argument_group("audio").add_argument
    table = "CSV or JSON lines with columns file, caption, split and any others; 'none' for the folders' names"
    found = "(default: captions or metadata .csv or .jsonl among the sounds)"
    phrasings = "file of phrasings such as '{word}, spoken by {speaker}', filled from the columns; or one that ships"
    classes = "columns kept as classes (default: the folder's name, where that is the caption)"
    longest = "cut longer sounds into equal pieces of at most this (default: 30)"
    trim = "cut what is so many dB below the peak from both ends, as in 60 (default: none)"
    level = "root mean square of each clip in dB of full scale, as far as its peak allows (default: -23); or none"
    share = "of the training files, by a hash of the name, where no split names validation (default: 0.05)"
    add("--rate", type=int, metavar="HZ", help="samples a second (default: the most frequent rate of the files)")
    add("--channels", type=int, metavar="N", help="1 or 2 (default: 1)")
    add("--captions", metavar="FILE", help=f"{table} {found}")
    add("--templates", metavar="FILE", help=phrasings)
    add("--attributes", metavar="LIST", help=classes)
    add("--max-seconds", type=float, metavar="S", help=longest)
    add("--min-seconds", type=float, metavar="S", help="skip shorter sounds (default: 0.1)")
    add("--trim", metavar="DB", help=trim)
    add("--level", metavar="DBFS", help=level)
    add("--validation", type=float, metavar="SHARE", help=share)


def _listed(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(part.strip().lower() for part in parts if part.strip()))


def _decibels(option: str, value: float | str | None) -> float | None:
    if value is None or str(value).lower() == "none":
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if option == "--trim" and 0 < abs(number) <= 200:
        return abs(number)
    if option == "--level" and -80 <= number <= 0:
        return number
    allowed = "dB below the peak, above 0 to 200" if option == "--trim" else "dB of full scale, -80 to 0"
    raise InputError(f"{option} {value} is not allowed; give {allowed}, or none")


def _check(rules: Rules) -> None:
    if rules.rate is not None and not RATES[0] <= rules.rate <= RATES[1]:
        raise InputError(f"--rate {rules.rate} is out of range; give {RATES[0]} to {RATES[1]} Hz")
    if rules.channels not in (1, 2):
        raise InputError(f"--channels {rules.channels} is not allowed; give 1 (mono) or 2 (stereo)")
    if not 0 <= rules.min_seconds < math.inf:
        raise InputError(f"--min-seconds {rules.min_seconds:g} is out of range; give 0 or more")
    if not max(rules.min_seconds, 1e-3) <= rules.max_seconds < math.inf:
        least = f"{max(rules.min_seconds, 1e-3):g}"
        raise InputError(f"--max-seconds {rules.max_seconds:g} is out of range; give {least} (--min-seconds) or more")
    if not 0 <= rules.validation < 1:
        raise InputError(f"--validation {rules.validation:g} is out of range; give a share from 0 to below 1")


def _check_output(target: Path) -> None:
    if target.is_dir():
        raise InputError(f"{target} is a folder; name the file to write, as in {target / 'sounds.npz'}")
    if target.suffix.lower() != ".npz":
        raise InputError(f"OUTPUT {target} must end in .npz, as in {target.name}.npz")
    writable_folder(target.parent)


def _packed(
    path: Path, rules: Rules, captions: str | Path | None, phrasings: str | Path | None
) -> tuple[PackedClips, str]:
    from tqdm import tqdm

    found = sources.find(path)
    filled = None if phrasings is None else templates.read(phrasings)
    if captions is not None and str(captions).lower() == "none":
        table = Table()
    else:
        table = table_of(found, None if captions is None else Path(captions))
    # disable=None: no bar where stderr is not a terminal
    with tqdm(total=len(found.files), unit=" files", desc="prepare", disable=None) as bar:
        clips, account, missing = packing.pack(found, table, rules, filled, bar)
    return clips, "\n".join(_lines(path, clips, account, rules, table, missing, found.ignored))


def _lines(
    path: Path, clips: PackedClips, account: Account, rules: Rules, table: Table, missing: list[str], ignored: int
) -> list[str]:
    return [
        *account.lines(path, ignored),
        *_contents(clips, account, rules),
        *_said(clips, table, missing),
    ]


def _contents(clips: PackedClips, account: Account, rules: Rules) -> list[str]:
    seconds = clips.lengths / clips.rate
    hours = f"{seconds.sum() / 3600:.2f} hours" if seconds.sum() >= 3600 else f"{seconds.sum() / 60:.1f} minutes"
    rates = ", ".join(f"{rate:,} Hz {n:,}" for rate, n in account.rates.most_common())
    why = "" if rules.rate else ", the most frequent rate"
    parts = ", ".join(f"{name} {len(clips.rows(i)):,}" for i, name in enumerate(SPLITS))
    return [
        f"clips: {len(clips):,}, {hours}, {seconds.min():.2f} to {seconds.max():.2f} s, {clips.rate:,} Hz{why}, "
        f"{'mono' if clips.channels == 1 else 'stereo'}",
        f"rates of the files: {rates}",
        f"split: {parts}",
    ]


def _said(clips: PackedClips, table: Table, missing: list[str]) -> list[str]:
    without = [source for source, said in zip(clips.sources, clips.captions, strict=True) if not said]
    lines = [f"captions: {len(clips.phrasings()):,} distinct"]
    lines += [f"  clips without caption: {few(without)}"] if without else []
    lines += [f"  captions for files that are not there: {few(missing)}"] if missing else []
    lines += [f"  lines left out: {few(table.left_out)}"] if table.left_out else []
    for name, attribute in clips.attributes.items():
        unknown = int((attribute.values < 0).sum())
        tail = f"; not known of {unknown:,} clips" if unknown else ""
        lines.append(f"{name}: {len(attribute.classes):,} classes ({_names(attribute.classes)}){tail}")
    return lines


def _names(classes: Sequence[str]) -> str:
    return ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
