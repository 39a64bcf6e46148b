"""`prepare` keeps every good molecule as it is, names every bad record, and can be interrupted at any time."""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")

from rdkit import Chem
from rdkit.Chem import AllChem

from multidiff.errors import InputError
from multidiff_molecules import packs, readers, shards
from multidiff_molecules.chemistry import canonical_smiles, from_rdkit, to_rdkit
from multidiff_molecules.molecule import PackedMolecules
from multidiff_molecules.prepare import add_arguments, prepare
from multidiff_molecules.report import Report, report_path

SMILES = ["CCO", "c1ccccc1", "N[C@@H](C)C(=O)O", "C[N+](C)(C)CC(=O)[O-]"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="the patch reaches the workers through fork")


def molecule(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=1) == 0
    return mol


def sd(smiles: str = "CCO") -> str:
    return Chem.MolToMolBlock(molecule(smiles)) + "$$$$\n"


def drawing(smiles: str) -> str:
    mol = Chem.MolFromSmiles(smiles)
    AllChem.Compute2DCoords(mol)
    return Chem.MolToMolBlock(mol) + "$$$$\n"


def block(*atoms: tuple[str, str, str, str], bonds: str = "") -> str:
    """An MDL block from (x, y, z, symbol) and bond lines as in '  1  2  1  0'."""
    lines = [f"{x:>10}{y:>10}{z:>10} {symbol:<3} 0  0" for x, y, z, symbol in atoms]
    bond_lines = [line for line in bonds.split("\n") if line]
    head = f"\n  made by hand      3D\n\n{len(atoms):3d}{len(bond_lines):3d}  0  0  0  0  0  0  0  0999 V2000"
    return "\n".join([head, *lines, *bond_lines, "M  END", "$$$$", ""])


def run(tmp_path: Path, name: str, content: str | bytes, **options: object) -> tuple[Report, PackedMolecules]:
    source = tmp_path / name
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = prepare(source, tmp_path / "out.npz", workers=1, **options)  # type: ignore[arg-type]
    assert report.records == report.kept + sum(report.skipped.values())
    return report, PackedMolecules.load(tmp_path / "out.npz")


def test_sd_records_come_back_as_they_are(tmp_path: Path) -> None:
    mols = [molecule(smiles) for smiles in SMILES]
    text = "".join(Chem.MolToMolBlock(mol) + ">  <name>\nx\n\n$$$$\n" for mol in mols)
    report, pack = run(tmp_path, "a.sdf", text)
    assert (report.records, report.kept, report.skipped) == (4, 4, {})
    for mol, smiles, packed, written in zip(mols, SMILES, pack, pack.smiles, strict=True):
        wanted = from_rdkit(mol)
        assert np.array_equal(packed.atomic_numbers, wanted.atomic_numbers)
        assert np.array_equal(packed.formal_charges, wanted.formal_charges)
        assert np.array_equal(packed.bonds.sum(1), wanted.bonds.sum(1))
        assert np.allclose(packed.positions, wanted.positions, atol=1e-4)
        assert written.decode() == Chem.CanonSmiles(smiles) == canonical_smiles(to_rdkit(packed))


@pytest.mark.parametrize("change", [lambda b: gzip.compress(b), lambda b: b.replace(b"\n", b"\r\n")])
def test_gzip_and_line_ends_change_nothing(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    text = (sd() + sd("CC#N")).encode()
    _, plain = run(tmp_path, "a.sdf", text)
    report, other = run(tmp_path, "b.sdf", change(text))
    assert report.kept == 2
    assert np.array_equal(plain.positions, other.positions)


def test_mol2(tmp_path: Path) -> None:
    water = (
        "# a comment\n@<TRIPOS>MOLECULE\nwater\n 3 2 1\nSMALL\nNO_CHARGES\n\n@<TRIPOS>ATOM\n"
        "1 O1 0.0 0.0 0.1173 O.3 1 WAT 0.0\n2 H1 0.0 0.7572 -0.4692 H 1 WAT 0.0\n3 H2 0.0 -0.7572 -0.4692 H 1 WAT 0.0\n"
        "@<TRIPOS>BOND\n1 1 2 1\n2 1 3 1\n"
    )
    report, pack = run(tmp_path, "a.mol2", water + "\n" + water)
    assert report.kept == 2
    assert pack.smiles.tolist() == [b"O", b"O"]
    assert report.duplicates == 1
    assert pack.positions[1] == pytest.approx([0, 0.7572, -0.4692])


BROKEN = {
    "unreadable record": sd().replace("V2000", "V9999"),
    "element not allowed": block(("0.0", "0.0", "1.0", "Xq")),
    "sanitisation fails": sd("CC(C)(C)C").replace("  1  2  1  0", "  1  2  2  0"),
    "no 3-D coordinates": drawing("CCO"),
    "coordinates not finite": block(("nan", "0.0", "1.0", "C"), ("0.0", "1.5", "0.0", "O"), bonds="  1  2  1  0"),
    "overlapping atoms": block(("0.0", "0.0", "1.0", "F"), ("0.0", "0.1", "1.0", "F"), bonds="  1  2  1  0"),
    "no atoms": block(),
    "more than one fragment": block(("0.0", "0.0", "1.0", "F"), ("0.0", "3.0", "0.0", "F")),
    "too many atoms": sd("C" * 43),
    "truncated record": sd()[:300],
}


@pytest.mark.parametrize("reason", BROKEN)
def test_each_broken_record_is_named_and_the_others_kept(tmp_path: Path, reason: str) -> None:
    order = [sd(), BROKEN[reason], sd("CC#N")]
    if reason == "truncated record":
        order = [order[0], order[2], order[1]]
    report, pack = run(tmp_path, "a.sdf", "".join(order))
    assert report.skipped == {reason: 1}
    assert report.examples[reason][0].startswith(f"a.sdf:{order.index(BROKEN[reason]) + 1}")
    assert pack.smiles.tolist() == [b"CCO", b"CC#N"]
    assert json.loads(report_path(tmp_path / "out.npz").read_text())["skipped"] == {reason: 1}
    assert f"skipped, {reason}: 1" in str(report)


def test_elements_and_size_can_be_limited(tmp_path: Path) -> None:
    report, pack = run(tmp_path, "a.sdf", sd("CCO") + sd("CCN") + sd("CCCCO"), elements="C,O", max_atoms=9)
    assert report.skipped == {"element not allowed": 1, "too many atoms": 1}
    assert pack.smiles.tolist() == [b"CCO"]


def test_drawings_are_embedded_on_request_with_their_stereo(tmp_path: Path) -> None:
    report, pack = run(tmp_path, "a.sdf", drawing("N[C@@H](C)C(=O)O"), embed=True)
    assert report.notes["conformers made"] == 1
    assert pack.smiles[0].decode() == Chem.CanonSmiles("N[C@@H](C)C(=O)O")
    assert np.ptp(pack.positions, axis=0).min() > 1.0


def test_a_planar_molecule_is_no_drawing(tmp_path: Path) -> None:
    water = block(
        ("0.0", "0.1173", "0.0", "O"), ("0.7572", "-0.4692", "0.0", "H"), ("-0.7572", "-0.4692", "0.0", "H"),
        bonds="  1  2  1  0\n  1  3  1  0",
    )  # fmt: skip
    assert run(tmp_path, "a.sdf", water)[0].kept == 1


def test_missing_hydrogens_are_added_where_they_belong(tmp_path: Path) -> None:
    heavy = Chem.RemoveHs(molecule("CCO"))
    report, pack = run(tmp_path, "a.sdf", Chem.MolToMolBlock(heavy) + "$$$$\n")
    assert report.notes["hydrogens added"] == 1
    assert np.allclose(pack.positions[:3], heavy.GetConformer().GetPositions(), atol=1e-4)
    first, second = pack.bond_index.T
    lengths = np.linalg.norm(pack.positions[first] - pack.positions[second], axis=1)[second >= 3]
    assert len(pack.positions) == 9
    assert np.all((lengths > 0.9) & (lengths < 1.2))


def test_the_largest_fragment_is_kept_on_request(tmp_path: Path) -> None:
    report, pack = run(tmp_path, "a.smi", "CC(=O)[O-].[Na+]\nCCO\n", largest_fragment=True)
    assert pack.smiles.tolist() == [b"CC(=O)[O-]", b"CCO"]
    assert report.notes["smaller fragments dropped"] == 1
    assert report.total_charges == {-1: 1, 0: 1}


def test_smiles_lists(tmp_path: Path) -> None:
    lines = "smiles name\n# a comment\n\nCCO ethanol\nC1CC( broken\nN[C@@H](C)C(=O)O\tL-alanine\n[2H]OC\n"
    report, pack = run(tmp_path, "a.smi", lines)
    assert report.examples["unreadable record"][0].startswith("a.smi:5 ")
    assert pack.smiles.tolist() == [b"CCO", b"C[C@H](N)C(=O)O", b"CO"]
    assert report.notes == {"conformers made": 3, "isotope labels dropped": 1}


def test_tables_with_a_column_of_smiles(tmp_path: Path) -> None:
    report, pack = run(tmp_path, "a.csv", 'id;"SMILES";note\n1;CCO;"two\nlines"\n2;;x\n3;CC#N;\n')
    assert pack.smiles.tolist() == [b"CCO", b"CC#N"]
    assert report.skipped == {"unreadable record": 1}
    with pytest.raises(InputError, match=r"no column of SMILES.*id, formula"):
        run(tmp_path, "b.csv", "id,formula\n1,C2H6O\n")


def test_conformers_are_relaxed(tmp_path: Path) -> None:
    _, pack = run(tmp_path, "a.smi", "CCCCO\n")
    mol = to_rdkit(pack[0])
    field = AllChem.MMFFGetMoleculeForceField(mol, AllChem.MMFFGetMoleculeProperties(mol))
    assert np.abs(field.CalcGrad()).max() < 0.1  # kcal/mol/angstrom


def test_a_conformer_beyond_the_time_limit_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"time limit: 1 .--time-limit"):
        run(tmp_path, "a.smi", "CCO\n", time_limit=1e-9)


def test_a_folder_is_searched_through(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b.sdf.gz").write_bytes(gzip.compress(sd().encode()))
    (folder / "a.mol").write_text(sd("CC#N").replace("$$$$\n", ""))
    (folder / "c.xyz").write_text("1\n\nHe 0 0 0\n")
    (folder / "notes.md").write_text("not a molecule")
    (folder / "empty.sdf").touch()
    report = prepare(folder, folder / "out.npz", workers=1)
    assert PackedMolecules.load(folder / "out.npz").smiles.tolist() == [b"CC#N", b"CCO"]
    assert set(report.ignored) == {"c.xyz", "notes.md"}
    assert report.examples["empty file"] == ["empty.sdf:0"]


def test_a_damaged_gzip_gives_what_lies_before_the_damage(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = "".join(sd("CCO").replace("RDKit", f"{rng.integers(10**9):09d}") for _ in range(300))
    packed = bytearray(gzip.compress(text.encode()))
    packed[len(packed) // 2 :] = b""
    report, _ = run(tmp_path, "a.sdf.gz", bytes(packed))
    assert 100 < report.kept < 200
    assert report.skipped == {"damaged file": 1}
    assert report.examples["damaged file"][0].startswith(f"a.sdf.gz:{report.kept + 1} ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.sdf", b"", "empty file"),
        ("a.sdf", drawing("CCO").encode(), "no 3-D coordinates: 1 .--embed"),
        ("a.smi", b"# nothing\n", "empty file"),
        ("a.sdf", bytes(range(256)) * 50, "could be used"),
        ("a.sdf.gz", b"\x1f\x8b not gzip", "damaged file"),
        ("a.xyz", b"1\n\nHe 0 0 0\n", "has no bonds"),
        ("a.docx", b"?", "not a file that can be read"),
        ("a.npz", b"PK\x03\x04?", "not a packed molecule file"),
    ],
)
def test_nothing_usable_is_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / "out.npz").write_text("old")
    with pytest.raises(InputError, match=message) as caught:
        run(tmp_path, name, content)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out.npz").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "out.npz"])


def test_wrong_paths(tmp_path: Path) -> None:
    (tmp_path / "a.sdf").write_text(sd())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no file or folder"):
        prepare(tmp_path / "missing.sdf", tmp_path / "out.npz")
    with pytest.raises(InputError, match="cannot write"):
        prepare(tmp_path / "a.sdf", tmp_path / "file" / "out.npz")
    with pytest.raises(InputError, match="is a folder"):
        prepare(tmp_path / "a.sdf", tmp_path)
    with pytest.raises(InputError, match=r"must end in \.npz"):
        prepare(tmp_path / "a.sdf", tmp_path / "a.sdf")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(InputError, match="no molecule file in folder"):
        prepare(tmp_path / "hollow", tmp_path / "out.npz")
    assert (tmp_path / "a.sdf").read_text() == sd()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "0.5,0.5"}, "three shares"),
        ({"split": "0.9,0.2,0.1"}, "add up to 1"),
        ({"split": "a,b,c"}, "three shares"),
        ({"split": [1.5, -0.5, 0]}, "three shares"),
        ({"split": "0,0.5,0.5"}, "three shares"),
        ({"split": "0.98,0.01,0.01"}, "leaves nothing for"),
        ({"split": "nan,0.5,0.5"}, "three shares"),
        ({"elements": "C,Qq"}, "'Qq' is no element"),
        ({"elements": ""}, "names none"),
        ({"max_atoms": 0}, "1 to 32767"),
        ({"seed": -1}, "--seed -1"),
        ({"time_limit": float("nan")}, "--time-limit"),
        ({"workers": 0}, "--workers 0"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    (tmp_path / "a.sdf").write_text(sd())
    with pytest.raises(InputError, match=message):
        prepare(tmp_path / "a.sdf", tmp_path / "out.npz", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out.npz").exists()


def test_one_molecule_is_train_and_the_lack_of_others_is_said(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    for seed in range(12):
        report, _ = run(tmp_path, "a.sdf", sd(), seed=seed)
        assert report.split == {"train": 1, "validation": 0, "test": 0}
    assert "leaves nothing for validation and test" in capfd.readouterr().err


def test_more_than_one_percent_skipped_is_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    good, bad = sd("C"), BROKEN["no atoms"]
    run(tmp_path, "a.sdf", good * 99 + bad, split="1,0,0")
    assert "skipped" not in capfd.readouterr().err
    run(tmp_path, "a.sdf", good * 98 + bad * 2, split="1,0,0")
    assert "2 of 100 records (2.0%) were skipped" in capfd.readouterr().err


def test_the_split_keeps_equals_together_and_does_not_move(tmp_path: Path) -> None:
    names = [b"C" * n + tail for n in range(1, 150) for tail in (b"O", b"N", b"C(F)Cl")]
    stereo = [b"C" * n + mark for n in range(1, 100) for mark in (b"[C@H](F)Cl", b"[C@@H](F)Cl", b"C(F)Cl")]
    canonical = [Chem.CanonSmiles(name.decode()).encode() for name in names + stereo]

    def parts(smiles: list[bytes], seed: int = 0) -> list[int]:
        empty = PackedMolecules.pack([], [])
        fields = {**vars(empty), "smiles": np.array(smiles), "atom_offsets": np.zeros(len(smiles) + 1, int)}
        return packs.split_of(PackedMolecules(**fields), (0.6, 0.3, 0.1), seed).tolist()

    whole = parts(canonical)
    assert parts(canonical[::-1]) == whole[::-1]
    assert parts(canonical[:100]) == whole[:100]
    assert parts(canonical, seed=1) != whole
    rows = np.array(whole[len(names) :]).reshape(-1, 3)
    assert np.all(rows == rows[:, :1])  # both isomers and the one without stereo
    shares = np.bincount(whole[: len(names)]) / len(names)
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.08)


# --- parallel, interrupted, continued ---


def test_the_file_does_not_depend_on_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    (tmp_path / "a.smi").write_text("CCO\nCCN\nbroken(\nCC=O\nCC#N\nCCC\n" * 2)
    for workers in (1, 2):
        prepare(tmp_path / "a.smi", tmp_path / f"{workers}.npz", workers=workers)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    pack = PackedMolecules.load(tmp_path / "1.npz")
    assert not np.allclose(pack[0].positions, pack[5].positions)  # the same SMILES, another line, another seed


SCRIPT = """
import sys
from multidiff_molecules import shards
from multidiff_molecules.prepare import prepare
shards.SHARD = 1
try:
    prepare(sys.argv[1], sys.argv[2], workers=2)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(source: Path, target: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(source), str(target)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_shards(folder: Path, least: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while len(list(folder.glob("*.npz"))) < least:
        assert process.poll() is None, "the work ended before it could be interrupted"
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_work_goes_on_and_ends_the_same(tmp_path: Path, how: signal.Signals) -> None:
    source, target, partial = tmp_path / "a.smi", tmp_path / "a.npz", tmp_path / "a.npz.partial"
    source.write_text("CCCCCCCCOc1ccc(CCNC(=O)CCl)cc1\n" * 24)
    process = start(source, target)
    wait_for_shards(partial, 2, process)
    process.send_signal(how)
    _, message = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not target.exists()
    time.sleep(0.2)  # orphaned workers see that their parent has gone
    made = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.npz")}
    assert 2 <= len(made) < 24
    assert how == signal.SIGKILL or f"interrupted; {len(made)} of 24 records are done" in message

    process = start(source, target)
    wait_for_shards(partial, len(made) + 1, process)
    now = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.npz")}
    assert now | made == now  # none was made again
    assert process.wait(timeout=120) == 0
    process.communicate()
    assert not partial.exists()
    prepare(source, tmp_path / "b.npz")
    assert target.read_bytes() == (tmp_path / "b.npz").read_bytes()


@linux
@pytest.mark.parametrize("changed", ["input", "options", "nothing"])
def test_stale_work_is_not_continued(
    tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(shards, "SHARD", 1)
    source, target = tmp_path / "a.smi", tmp_path / "out.npz"
    source.write_text("CCO\nCCN\nCC#N\n")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "read_shard", _stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, target, workers=1)
    assert len(list((tmp_path / "out.npz.partial").glob("*.npz"))) == 3
    if changed == "input":
        source.write_text("CCF\nCCN\nCC#N\n")
    prepare(source, target, workers=1, seed=1 if changed == "options" else 0)
    assert ("starting anew" in capfd.readouterr().err) == (changed != "nothing")
    prepare(source, tmp_path / "fresh.npz", workers=1, seed=1 if changed == "options" else 0)
    assert target.read_bytes() == (tmp_path / "fresh.npz").read_bytes()


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


@linux
def test_a_dead_worker_is_an_error_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "clean", lambda *_: os._exit(9))
    with pytest.raises(InputError, match="a worker process died"):
        run(tmp_path, "a.sdf", sd())


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.npz.partial").mkdir()
    (tmp_path / "out.npz.partial" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="is in the way"):
        run(tmp_path, "a.sdf", sd())
    assert (tmp_path / "out.npz.partial" / "thesis.txt").read_text() == "precious"


@linux
def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    with (
        shards.partial_folder(tmp_path / "out.npz.partial", {}),
        pytest.raises(InputError, match="another 'multidiff prepare'"),
    ):
        run(tmp_path, "a.sdf", sd())


# --- packed files ---


def packed(tmp_path: Path, **changes: np.ndarray) -> Path:
    mols = [from_rdkit(molecule(smiles)) for smiles in ("CCO", "CC#N", "C", "CO")]
    pack = PackedMolecules.pack(mols, ["CCO", "CC#N", "C", "CO"], [2, 0, 1, 0])
    fields = {**vars(pack), **changes}
    path = tmp_path / "in.npz"
    PackedMolecules(**fields).save(path, gdb_index=np.arange(4), property_names=np.array([b"mu", b"gap"]))
    return path


def test_a_packed_file_keeps_its_split_and_further_arrays(tmp_path: Path) -> None:
    source = packed(tmp_path)
    report = prepare(source, tmp_path / "out.npz", max_atoms=8)
    old, new = PackedMolecules.load(source), PackedMolecules.load(tmp_path / "out.npz")
    assert report.skipped == {"too many atoms": 1}
    assert new.split.tolist() == [0, 1, 0]
    for i in range(3):
        for name in ("atomic_numbers", "positions", "formal_charges", "bonds"):
            assert np.array_equal(getattr(new[i], name), getattr(old[i + 1], name))
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["gdb_index"].tolist() == [1, 2, 3]
        assert arrays["property_names"].tolist() == [b"mu", b"gap"]


def test_each_fault_of_a_packed_molecule_is_found(tmp_path: Path) -> None:
    old = PackedMolecules.load(packed(tmp_path))
    positions, bonds, numbers = old.positions.copy(), old.bond_index.copy(), old.atomic_numbers.copy()
    positions[0] = np.nan
    positions[old.atom_offsets[1] + 1] = positions[old.atom_offsets[1]] + 0.1
    bonds[old.bond_offsets[2]] = [0, 5]
    numbers[old.atom_offsets[3]] = 92
    with pytest.raises(InputError, match="nothing in"):
        prepare(packed(tmp_path, positions=positions, bond_index=bonds, atomic_numbers=numbers), tmp_path / "out.npz")
    faults = packs.faults(PackedMolecules.load(tmp_path / "in.npz"), shards.Rules())
    assert {reason: np.flatnonzero(rows).tolist() for reason, rows in faults if rows.any()} == {
        "coordinates not finite": [0],
        "overlapping atoms": [1],
        "malformed bonds": [2],
        "element not allowed": [3],
    }
    cut = old.bond_index.copy()
    cut[old.bond_offsets[3]] = cut[old.bond_offsets[3] + 1]  # one bond twice, another gone
    report = prepare(packed(tmp_path, bond_index=cut), tmp_path / "out.npz")
    assert report.skipped == {"more than one fragment": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("positions", np.zeros((3, 3), np.float32)),
        ("split", np.full(4, 7, np.int8)),
        ("atom_offsets", np.array([0, 9, 4, 20, 26])),
        ("smiles", np.array([b"C"])),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, name: str, value: np.ndarray) -> None:
    with pytest.raises(InputError, match=f"array {name}"):
        prepare(packed(tmp_path, **{name: value}), tmp_path / "out.npz")


def test_aromatic_bonds_and_milliangstrom_of_other_makers(tmp_path: Path) -> None:
    mols = [molecule(smiles) for smiles in ("c1ccccc1O", "CCO", "c1cc[nH]c1", "C[n+]1ccccc1", "c1ccccc1C")]
    pack = PackedMolecules.pack([from_rdkit(mol) for mol in mols], [Chem.MolToSmiles(Chem.RemoveHs(m)) for m in mols])
    orders = pack.bond_order.copy()
    for i, mol in enumerate(mols):
        rows = range(pack.bond_offsets[i], pack.bond_offsets[i + 1])
        ring = [mol.GetBondBetweenAtoms(*pack.bond_index[row].tolist()).GetIsAromatic() for row in rows]
        orders[rows] = np.where(ring, 4, orders[rows])
    fields = {name: getattr(pack, name) for name in PackedMolecules.__dataclass_fields__ if name != "positions"}
    fields |= {"bond_order": orders, "positions_mA": np.rint(pack.positions * 1000).astype(np.int16)}
    np.savez(tmp_path / "in.npz", **fields)
    prepare(tmp_path / "in.npz", tmp_path / "out.npz")
    new = PackedMolecules.load(tmp_path / "out.npz")
    assert np.allclose(new.positions, pack.positions, atol=6e-4)
    for one, smiles in zip(new, new.smiles, strict=True):
        assert canonical_smiles(to_rdkit(one)) == smiles.decode()
    fields["bond_order"] = np.where(orders == 2, 4, orders)
    fields["bond_order"][: pack.bond_offsets[1]] = 4  # hydrogens aromatic: no Kekule form
    np.savez(tmp_path / "in.npz", **fields)
    assert prepare(tmp_path / "in.npz", tmp_path / "out.npz").examples == {"malformed bonds": ["in.npz:1"]}


@linux
def test_one_record_on_which_rdkit_fails_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(mol: Chem.Mol) -> None:
        if mol.GetNumAtoms() == 9:
            raise RuntimeError("Invariant\n\tViolation")

    monkeypatch.setattr(Chem, "AssignStereochemistryFrom3D", fail)
    report, pack = run(tmp_path, "a.sdf", sd("CCO") + sd("C"))
    assert report.examples == {"RDKit fails": ["a.sdf:1 Invariant Violation"]}
    assert pack.smiles.tolist() == [b"C"]


def test_join_and_choose_are_those_of_lists(tmp_path: Path) -> None:
    whole = PackedMolecules.load(packed(tmp_path))
    keep = np.array([True, False, True, True])
    some = packs.join([packs.choose(whole, ~keep), packs.choose(whole, keep)])
    for i, j in enumerate([1, 0, 2, 3]):
        assert np.array_equal(some[i].bonds, whole[j].bonds)
        assert np.array_equal(some[i].positions, whole[j].positions)
        assert (some.smiles[i], some.split[i]) == (whole.smiles[j], whole.split[j])
    assert len(packs.join([])) == 0


def test_the_command_line_options_are_the_keywords(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = "--elements C,O --max-atoms 9 --largest-fragment --embed --split 1,0,0 --seed 3 --time-limit 2 --workers 1"
    options = vars(parser.parse_args(given.split()))
    (tmp_path / "a.sdf").write_text(sd())
    assert prepare(tmp_path / "a.sdf", tmp_path / "out.npz", **options).kept == 1
    assert set(vars(parser.parse_args([])).values()) == {None}


# --- real files ---


@pytest.fixture
def messy() -> Path:
    if "MULTIDIFF_DATA" not in os.environ:
        pytest.skip("MULTIDIFF_DATA is not set")
    return Path(os.environ["MULTIDIFF_DATA"]) / "messy"


@pytest.mark.data
def test_as_many_records_are_found_as_rdkit_finds(messy: Path) -> None:
    with open(messy / "manifest.csv", newline="") as file:
        observed = {row["file"]: row["observed"] for row in csv.DictReader(file)}
    for source in readers.find_sources(messy / "molecules", Path("none"))[0]:
        known = observed[f"molecules/{source.name}"]
        records = list(readers.read_records(source))
        if source.kind == "sd" and "prop_name_trunc" not in source.name:  # RDKit loses four of those six
            assert f"of {len(records)} records" in known
        if source.kind == "smiles":
            assert f"of {len(records) + 1} lines" in known  # a comment is counted there


@pytest.mark.data
def test_real_messy_files(messy: Path, tmp_path: Path) -> None:
    report = prepare(messy / "molecules", tmp_path / "out.npz", embed=True, largest_fragment=True)
    assert report.records == report.kept + sum(report.skipped.values())
    assert {name.rpartition(".")[2] for name in report.ignored} == {"pdb", "xyz"}
    for reason in ("unreadable record", "sanitisation fails", "coordinates not finite", "too many atoms", "no atoms"):
        assert any("derived_m" in example for example in report.examples[reason])
    pack = PackedMolecules.load(tmp_path / "out.npz")
    for one, smiles in zip(pack, pack.smiles, strict=True):
        assert canonical_smiles(to_rdkit(one)) == smiles.decode()
