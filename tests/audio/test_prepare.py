"""`prepare` keeps every good sound, names every bad file, and needs nothing unpacked."""

from __future__ import annotations

import io
import math
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("torchaudio")

import soundfile

from multidiff.captions import TEST, TRAIN, VALIDATION, chance
from multidiff.cli import main
from multidiff.errors import InputError
from multidiff_audio import domain
from multidiff_audio.clips import PackedClips
from multidiff_audio.packing import PEAK, trimmed
from multidiff_audio.prepare import load_or_pack, prepare
from multidiff_audio.sound import level, peak

RATE = 8000


def tone(frequency: float = 440.0, seconds: float = 0.5, rate: int = RATE, amplitude: float = 0.3) -> np.ndarray:
    """(samples,), over whole periods where they fit: its mean is 0."""
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path: Path, sound: np.ndarray | None = None, rate: int = RATE, **kind: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone() if sound is None else sound, rate, **kind)
    return path


def run(source: Path, **options: object) -> tuple[str, PackedClips]:
    target = source.parent / "out.npz"
    report = prepare(source, target, **options)  # type: ignore[arg-type]
    return report, PackedClips.load(target)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "sounds"
    made.mkdir()
    return made


def test_sounds_come_back_as_they_are_where_nothing_is_to_be_done(folder: Path) -> None:
    rng = np.random.default_rng(0)
    sounds = {}
    for name in ("b.flac", "a.wav", "deep/down/c.aiff"):
        noise = np.round(rng.uniform(-8000, 8000, 3000 + len(name)))
        sounds[name] = (noise - np.round(noise.mean())) / 32768
        write(folder / name, sounds[name])
    _, clips = run(folder, level="none")
    assert list(clips.sources) == ["a.wav", "b.flac", "deep/down/c.aiff"]
    for i, name in enumerate(clips.sources):
        assert np.abs(clips.sound(i)[0] - sounds[name]).max() <= 1.01 / 32768
    assert clips.rate == RATE


def test_folders_are_captions_and_classes(folder: Path) -> None:
    for name in ("dogs/1.wav", "sea_waves/1.wav", "sea_waves/2.wav", "loose.wav"):
        write(folder / name)
    report, clips = run(folder)
    assert [*zip(clips.sources, clips.captions, strict=True)] == [
        ("loose.wav", ()),
        ("dogs/1.wav", ("dogs",)),
        ("sea_waves/1.wav", ("sea waves",)),
        ("sea_waves/2.wav", ("sea waves",)),
    ]
    assert clips.attributes["label"].classes == ("dogs", "sea_waves")
    assert clips.attributes["label"].values.tolist() == [-1, 0, 1, 1]
    assert "clips without caption: 1: loose.wav" in report


def test_folders_that_name_a_part_of_the_data_are_no_captions(folder: Path) -> None:
    for name in ("train/dogs/1.wav", "test/dogs/1.wav", "val/2.wav"):
        write(folder / name)
    _, clips = run(folder)
    assert dict(zip(clips.sources, clips.split.tolist(), strict=True)) == {
        "train/dogs/1.wav": TRAIN,
        "test/dogs/1.wav": TEST,
        "val/2.wav": VALIDATION,
    }
    assert dict(zip(clips.sources, clips.captions, strict=True))["val/2.wav"] == ()


TABLE = """file,caption,word,speaker,split
a.wav,Theo says one.,one,theo,train
b.wav,,two,,test
gone.wav,Nobody.,three,theo,validation
"""


def test_tables_are_found_and_what_fits_nothing_is_named(folder: Path) -> None:
    for name in "abc":
        write(folder / f"{name}.wav")
    (folder / "captions.csv").write_text(TABLE)
    report, clips = run(folder, attributes="word, Speaker")
    assert clips.captions == [("Theo says one.",), (), ()]
    assert clips.split.tolist() == [TRAIN, TEST, TRAIN]
    assert clips.attributes["speaker"].values.tolist() == [0, -1, -1]
    assert clips.attributes["word"].classes == ("one", "two")
    assert "captions for files that are not there: 1: gone.wav" in report
    assert "clips without caption: 2: b.wav; c.wav" in report


def test_tables_elsewhere_templates_and_no_tables(folder: Path) -> None:
    for name in "ab":
        write(folder / "digits" / f"{name}.wav")
    (folder / "digits" / "metadata.csv").write_text(TABLE)
    phrasings = folder.parent / "phrasings.txt"
    phrasings.write_text("{word}\n{word} by {who}\nwho from speaker: theo = Theo | a man\n")
    assert run(folder, templates=phrasings)[1].captions == [("one", "one by Theo", "one by a man"), ("two",)]
    other = folder.parent / "other.jsonl"
    other.write_text('{"path": "sounds/digits/a.wav", "text": "eins"}\n')
    assert run(folder, captions=other)[1].captions == [("eins",), ()]
    assert run(folder, captions="none")[1].captions == [("digits",), ("digits",)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"attributes": "singer"}, "--attributes: no column 'singer'; there are caption, word, speaker, split"),
        ({"captions": "none.csv"}, "cannot read the captions none.csv"),
        ({"templates": "none.txt"}, "cannot read the templates none.txt"),
        ({"rate": 3}, "--rate 3 is out of range"),
        ({"channels": 6}, "--channels 6 is not allowed"),
        ({"max_seconds": math.nan}, "--max-seconds nan is out of range"),
        ({"max_seconds": 0.01}, "--max-seconds 0.01 is out of range"),
        ({"min_seconds": -1.0}, "--min-seconds -1 is out of range"),
        ({"trim": "loud"}, "--trim loud is not allowed"),
        ({"trim": math.nan}, "--trim nan is not allowed"),
        ({"level": 5.0}, "--level 5.0 is not allowed"),
        ({"validation": 1.0}, "--validation 1 is out of range"),
    ],
)
def test_wrong_options_are_refused_and_write_nothing(folder: Path, options: dict[str, object], why: str) -> None:
    write(folder / "a.wav")
    (folder / "captions.csv").write_text(TABLE)
    with pytest.raises(InputError, match=why):
        run(folder, **options)
    assert not (folder.parent / "out.npz").exists()


def test_captions_that_fit_no_file_at_all_are_refused(folder: Path) -> None:
    write(folder / "a.wav")
    (folder / "captions.csv").write_text("file,caption\nx.wav,one\ny.wav,two\n")
    with pytest.raises(InputError, match=r"none of the 2 files .*\(the first: x.wav\)"):
        run(folder)


@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".tar.bz2", ".tgz", ".zip"])
def test_archives_hold_what_the_folder_does(folder: Path, kind: str) -> None:
    for i in range(4):
        write(folder / f"x/{i}.flac", tone(200 * (i + 1)))
    (folder / "x" / "metadata.csv").write_text("file,caption\n" + "".join(f"x/{i}.flac,n {i}\n" for i in range(4)))
    (folder / "x" / "._0.flac").write_bytes(b"what another system left")
    archive = folder.parent / f"packed{kind}"
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    if kind == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in names:
                file.write(path, path.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, "w:" + {".tar": "", ".tar.bz2": "bz2"}.get(kind, "gz")) as file:
            for path in names:
                file.add(path, "./" + path.relative_to(folder).as_posix())
    report, packed = run(archive)
    _, clips = run(folder)
    assert np.array_equal(packed.audio, clips.audio)
    assert (packed.sources, packed.captions, packed.rate) == (clips.sources, clips.captions, clips.rate)
    assert packed.captions[3] == ("n 3",)
    assert "0 skipped" in report


def test_archives_that_break_off_give_what_is_whole(folder: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for i in range(4):
            file.add(write(folder / f"{i}.wav", tone(200 * (i + 1))), f"{i}.wav")
    archive = folder.parent / "a.tar"
    archive.write_bytes(buffer.getvalue()[: 2 * (512 + 8192) + 1000])  # header and content of each; the third is cut
    report, clips = run(archive)
    assert list(clips.sources) == ["0.wav", "1.wav"]
    assert report.startswith("warning: ")
    assert "2.wav cannot be taken from a.tar: unexpected end of data" in report
    for content in (b"", b"no archive"):
        archive.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot read the archive|no sound file"):
            run(archive)


def test_one_file_is_a_data_set_too(folder: Path) -> None:
    _, clips = run(write(folder / "a.wav"))
    assert list(clips.sources) == ["a.wav"]


def _bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and the words that the report has for each."""
    whole = write(folder / "whole.flac").read_bytes()
    (folder / "whole.flac").unlink()
    (folder / "text.wav").write_text("a text, named .wav")
    (folder / "zero.wav").write_bytes(b"")
    (folder / "cut.flac").write_bytes(whole[:60])
    (folder / "phone.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A ")
    write(folder / "empty.wav", np.zeros(0))
    write(folder / "silent.wav", np.zeros(RATE))
    write(folder / "level.wav", np.full(RATE, 0.25))
    write(folder / "nan.wav", np.full(RATE, np.nan), subtype="FLOAT")
    write(folder / "short.wav", tone(seconds=0.05))
    words = {"text.wav": "not a sound file", "zero.wav": "empty", "cut.flac": "damaged|holds no samples"}
    words |= {"phone.m4a": "convert", "empty.wav": "no samples", "short.wav": "shorter than 0.1 s"}
    return words | dict.fromkeys(("silent.wav", "level.wav", "nan.wav"), "silent")


def test_bad_files_are_skipped_counted_and_named(folder: Path) -> None:
    bad = _bad_files(folder)
    write(folder / "good.wav")
    report, clips = run(folder)
    assert list(clips.sources) == ["good.wav"]
    assert report.startswith(f"warning: {len(bad)} of {len(bad) + 1} files")
    assert f"{len(bad) + 1} files, 1 kept, {len(bad)} skipped" in report
    for reason, n in {"not readable": 5, "silent": 3, "shorter than 0.1 s": 1}.items():
        assert f"skipped, {reason}: {n}: " in report


@pytest.mark.parametrize(
    "name", ["text.wav", "zero.wav", "cut.flac", "empty.wav", "silent.wav", "nan.wav", "short.wav"]
)
def test_a_bad_file_alone_is_refused_in_one_line(folder: Path, name: str) -> None:
    why = _bad_files(folder)[name]
    with pytest.raises(InputError, match=why) as refused:
        run(folder / name)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_folders_with_nothing_readable_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no sound file in .*looked for \.wav"):
        run(folder)
    _bad_files(folder)
    with pytest.raises(InputError, match=r"could be used; .*not readable: 5"):
        run(folder)
    assert not (folder.parent / "out.npz").exists()


def test_few_skipped_files_are_no_warning(folder: Path) -> None:
    for i in range(100):
        write(folder / f"{i}.wav")
    (folder / "bad.wav").write_text("text")
    report, clips = run(folder)
    assert len(clips) == 100
    assert not report.startswith("warning")
    (folder / "bad2.wav").write_text("text")
    assert run(folder)[0].startswith("warning: 2 of 102 files (2.0%)")


def test_pipes_in_a_folder_are_not_waited_for(folder: Path) -> None:
    write(folder / "a.wav")
    os.mkfifo(folder / "b.wav")
    (folder / "c.wav").symlink_to(folder / "gone.wav")
    report, clips = run(folder)
    assert list(clips.sources) == ["a.wav"]
    assert "cannot read c.wav" in report


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_odd_files_are_kept_with_a_note(folder: Path) -> None:
    broken = tone()
    broken[7] = np.nan
    write(folder / "not_finite.wav", broken, subtype="FLOAT")
    write(folder / "loud.wav", 1e6 * tone(), subtype="DOUBLE")
    write(folder / "clipped.wav", np.clip(9 * tone(), -1, 1))
    write(folder / "bits.wav", tone(), subtype="PCM_U8")
    write(folder / "law.wav", tone(), subtype="ULAW")
    write(folder / "six.wav", np.stack([tone()] * 6, 1))
    write(folder / "offset.wav", tone() + 0.3)
    write(folder / "fast.wav", tone(rate=22050), 22050)
    report, clips = run(folder)
    assert len(clips) == 8
    notes = ["not finite", "beyond full scale", "clipped", "8-bit", "u-law", "6 channels mixed to mono", "offset"]
    for note in [*notes, "resampled"]:
        assert f"  {note}: 1\n" in report
    reference = clips.sound(list(clips.sources).index("six.wav"))[0]
    for i, name in enumerate(clips.sources):
        assert level(clips.sound(i)) == pytest.approx(-23, abs=0.05), name
        inner = slice(200, 3800)  # filters have their ends, and one file a hole at its beginning
        error = 0.1 if name == "clipped.wav" else 0.02
        assert np.abs(clips.sound(i)[0, inner] - reference[inner]).max() < error * 3, name


def test_levels_are_as_asked_but_for_the_peaks(folder: Path) -> None:
    click = np.zeros(RATE)
    click[[10, 20]] = 0.5, -0.5
    write(folder / "click.wav", click)
    write(folder / "quiet.wav", tone(amplitude=0.001))
    report, clips = run(folder, level="-20")
    assert peak(clips.sound(0)) == pytest.approx(PEAK, abs=1e-4)
    assert level(clips.sound(0)) < -30
    assert level(clips.sound(1)) == pytest.approx(-20, abs=0.1)
    assert "quieter than asked, for its peak: 1" in report


def test_offsets_are_removed_whatever_the_level(folder: Path) -> None:
    write(folder / "a.wav", tone() + 0.2)
    for choice in ("none", -30):
        assert abs(run(folder, level=choice)[1].sound(0).mean()) < 1e-4


def test_rates_by_default_and_by_choice(folder: Path) -> None:
    for i, rate in enumerate([16000, 16000, 44100, 8000]):
        write(folder / f"{i}.wav", tone(1000, rate=rate), rate)
    for i in range(5):
        (folder / f"bad{i}.wav").write_text("a text has no rate")
    report, clips = run(folder)
    assert clips.rate == 16000
    assert "16,000 Hz, the most frequent rate" in report
    assert "resampled: 2" in report
    for rate in (16000, 11025):
        _, clips = run(folder, rate=rate)
        assert clips.rate == rate
        for i in range(4):
            assert clips.lengths[i] == math.ceil(0.5 * rate)
            spectrum = np.abs(np.fft.rfft(clips.sound(i)[0]))
            assert spectrum.argmax() * rate / clips.lengths[i] == pytest.approx(1000, abs=3)


def test_stereo_keeps_its_sides_and_mono_becomes_two(folder: Path) -> None:
    write(folder / "a.wav", np.stack([tone(300), tone(700)], 1))
    write(folder / "b.wav", tone(500))
    _, clips = run(folder, channels=2)
    assert clips.channels == 2
    highest = np.abs(np.fft.rfft(clips.sound(0))).argmax(1) * RATE / clips.lengths[0]
    assert highest == pytest.approx([300, 700])
    assert np.array_equal(*clips.sound(1))


def test_long_sounds_become_equal_pieces_and_lose_nothing(folder: Path) -> None:
    sound = tone(seconds=2.5) + 0.01 * np.random.default_rng(0).normal(size=20000)
    write(folder / "a.wav", sound - sound.mean())
    report, clips = run(folder, max_seconds=1.0, level="none", validation=0.5)
    assert clips.lengths.sum() == 20000
    assert clips.lengths.max() <= RATE
    assert np.ptp(clips.lengths) <= 1
    assert np.abs(np.concatenate([clips.sound(i)[0] for i in range(3)]) - (sound - sound.mean())).max() < 2e-3
    assert len(set(clips.split.tolist())) == 1  # pieces of a file stay together
    assert "cut into pieces: 1" in report


def test_silent_pieces_are_left_out(folder: Path) -> None:
    write(folder / "a.wav", np.concatenate([tone(seconds=1), np.zeros(RATE), tone(seconds=1)]))
    report, clips = run(folder, max_seconds=1.0)
    assert len(clips) == 2
    assert "silent pieces left out: 1" in report


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_trimming_cuts_the_ends_but_not_the_middle(folder: Path, offset: float) -> None:
    quiet = np.zeros(RATE)
    sound = np.concatenate([quiet, tone(seconds=0.25), quiet[:1000], tone(seconds=0.25), quiet]) + offset
    write(folder / "a.wav", sound)
    assert run(folder)[1].lengths.tolist() == [len(sound)]
    for below in ("60", -60.0):
        margin = 0.01 * RATE
        assert run(folder, trim=below)[1].lengths[0] == pytest.approx(5000 + 2 * margin, abs=2)


def test_trimming_leaves_what_is_louder_than_asked() -> None:
    rng = np.random.default_rng(1)
    sound = (rng.uniform(-1, 1, (2, 4000)) * np.geomspace(1, 1e-6, 4000)).astype(np.float32)
    cut = trimmed(sound, RATE, 40.0)
    assert np.array_equal(cut, sound[:, : cut.shape[1]])
    rest = np.abs(sound[:, cut.shape[1] - round(0.01 * RATE) :]).max()
    assert rest <= 0.01 * np.abs(sound).max() * 1.001
    assert np.abs(sound[:, cut.shape[1] - round(0.01 * RATE) - 1]).max() > 0.0099 * np.abs(sound).max()


def test_validation_follows_from_the_name_alone(folder: Path) -> None:
    for i in range(60):
        write(folder / f"{i}.wav")
    _, clips = run(folder, validation=0.3)
    before = dict(zip(clips.sources, clips.split.tolist(), strict=True))
    assert 8 <= sum(split == VALIDATION for split in before.values()) <= 30
    for i in range(0, 60, 2):
        (folder / f"{i}.wav").unlink()
    _, clips = run(folder, validation=0.3)
    assert all(before[name] == split for name, split in zip(clips.sources, clips.split.tolist(), strict=True))
    assert run(folder, validation=0.0)[1].split.max() == TRAIN


def test_chances_are_uniform() -> None:
    drawn = np.sort([chance(f"sounds/{i}.wav") for i in range(4000)])
    assert np.abs(drawn - np.linspace(0, 1, 4000)).max() < 0.03  # Kolmogorov-Smirnov, p = 0.001


def test_a_split_that_names_validation_is_left_alone(folder: Path) -> None:
    for i in range(40):
        write(folder / f"{i}.wav")
    rows = "".join(f"{i}.wav,{'val' if i == 0 else 'train'}\n" for i in range(40))
    (folder / "metadata.csv").write_text("file,split\n" + rows)
    assert run(folder, validation=0.5)[1].split.sum() == VALIDATION


def test_outputs_that_cannot_be_written_are_refused_before_any_work(folder: Path) -> None:
    write(folder / "a.wav")
    with pytest.raises(InputError, match="is a folder"):
        prepare(folder, folder)
    with pytest.raises(InputError, match=r"must end in \.npz"):
        prepare(folder, folder.parent / "out.wav")
    with pytest.raises(InputError, match="cannot write"):
        prepare(folder, folder / "a.wav" / "out.npz")
    run(folder)
    with pytest.raises(InputError, match="packed already"):
        prepare(folder.parent / "out.npz", folder.parent / "again.npz")


def test_folders_are_packed_in_memory_as_prepare_packs_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dogs/a.wav", "cats/b.wav"):
        write(folder / name, tone(rate=11025), 11025)
    _, clips = run(folder, rate=8000)
    for path in (folder, folder.parent / "out.npz"):
        loaded = load_or_pack(path, rate=8000)
        assert np.array_equal(loaded.audio, clips.audio)
        assert loaded.captions == clips.captions
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 kept" in captured.err
    with pytest.raises(InputError, match="no file or folder"):
        load_or_pack(folder / "none")


def test_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "dogs" / "a.wav")
    target = folder.parent / "made" / "out.npz"
    options = ["--rate", "4000", "--channels", "2", "--trim", "-60", "--level", "-30", "--validation", "0"]
    assert main(["prepare", "audio", str(folder), str(target), *options]) == 0
    clips = PackedClips.load(target)
    assert (clips.rate, clips.channels) == (4000, 2)
    assert level(clips.sound(0)) == pytest.approx(-30, abs=0.1)
    assert "dogs" in capsys.readouterr().out
    assert main(["prepare", "audio", str(folder), str(target), "--rate", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def _data() -> Path:
    if "MULTIDIFF_DATA" not in os.environ:
        pytest.skip("MULTIDIFF_DATA is not set")
    return Path(os.environ["MULTIDIFF_DATA"])


@pytest.mark.data
def test_messy_files_never_stop_a_run(tmp_path: Path) -> None:
    folder = _data() / "messy" / "audio"
    report = prepare(folder, tmp_path / "out.npz", min_seconds=0.0, rate=16000, max_seconds=5.0)
    clips = PackedClips.load(tmp_path / "out.npz")
    skipped = {path.name for path in folder.iterdir()} - set(clips.sources)
    none = {"scipy_incomplete_chunk.wav", "scipy_truncated_no_data.wav", "small.mp3", "small_empty.wav"}
    assert skipped == none | {"derived_text_named.wav", "derived_silence_16k.flac"}
    assert "26 files, 20 kept, 6 skipped" in report
    assert clips.lengths.max() <= 5 * 16000
    assert np.abs(clips.audio).max() < 32768 * PEAK + 1


@pytest.mark.data
def test_spoken_digits_from_their_archive(tmp_path: Path) -> None:
    part = tmp_path / "part.tar"
    with tarfile.open(_data() / "fsdd.tar") as whole, tarfile.open(part, "w") as kept:
        for i, member in enumerate(whole.getmembers()):
            if i % 60 == 0 or member.name.endswith(".csv"):
                kept.addfile(member, whole.extractfile(member))
    templates = domain.folder / "configs" / "digits.captions.txt"
    prepare(part, tmp_path / "out.npz", attributes="word,speaker", templates=templates)
    clips = PackedClips.load(tmp_path / "out.npz")
    assert len(clips) == 50
    assert clips.rate == 8000
    words, speakers = clips.attributes["word"], clips.attributes["speaker"]
    for i, source in enumerate(clips.sources):  # fsdd/7_theo_12.flac
        digit, speaker, index = Path(source).stem.split("_")
        said = words.classes[words.values[i]]
        assert speakers.classes[speakers.values[i]] == speaker
        assert {said, digit, f"{said}, spoken by {speaker}"} <= set(clips.captions[i])
        assert (clips.split[i] == TEST) == (int(index) < 5)  # the first five of each are the test split
