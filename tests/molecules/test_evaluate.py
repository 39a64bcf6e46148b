"""Evaluation of files: generated ones score as their arrays do, and what cannot be read is a failure with a name."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")

from multidiff.errors import InputError
from multidiff_molecules.chemistry import canonical_smiles, to_rdkit
from multidiff_molecules.evaluate import evaluate, load
from multidiff_molecules.metrics import format_table, score
from multidiff_molecules.molecule import Molecule, PackedMolecules
from multidiff_molecules.output import write


@pytest.fixture(scope="module")
def batch(molecules: list[Molecule], methyl: Molecule) -> list[Molecule]:
    loose = replace(molecules[3], bonds=np.zeros_like(molecules[3].bonds))
    lost = replace(molecules[4], positions=molecules[4].positions * np.nan)
    charged = replace(molecules[5], formal_charges=molecules[5].formal_charges + np.int8(1))
    return [*molecules, methyl, loose, lost, charged]


@pytest.fixture(scope="module")
def folder(batch: list[Molecule], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated")
    write(batch, range(len(batch)), path, {"seed": 0, "note": 'with "quotes" and bonds="0-1:3"'})
    return path


def test_a_generated_folder_scores_as_its_arrays(batch: list[Molecule], folder: Path) -> None:
    """Rejected samples count, with the bonds and charges they had."""
    from_disk, direct = evaluate(folder, progress=False), score(batch)
    assert from_disk["samples"] == len(batch) == 14
    assert from_disk["file_valid"] == 10 / 14
    assert from_disk.keys() == direct.keys()
    for name, value in direct.items():
        assert from_disk[name] == pytest.approx(value, abs=2e-3), name


def test_rejected_samples_read_back_exactly(batch: list[Molecule], folder: Path) -> None:
    for read, molecule in zip(load(folder)[10:], batch[10:], strict=True):
        assert read.molecule is not None
        np.testing.assert_array_equal(read.molecule.atomic_numbers, molecule.atomic_numbers)
        np.testing.assert_array_equal(read.molecule.formal_charges, molecule.formal_charges)
        np.testing.assert_array_equal(read.molecule.bonds, molecule.bonds)
        np.testing.assert_allclose(read.molecule.positions, molecule.positions, atol=1e-6)


def test_samples_keep_their_order(molecules: list[Molecule], methyl: Molecule, tmp_path: Path) -> None:
    """The first N of a folder are not all valid ones, which stand in the first file."""
    write([methyl, molecules[0], methyl, molecules[1]], [0, 1, 2, 3], tmp_path, {})
    assert [len(s.molecule or ()) for s in load(tmp_path)] == [4, 24, 4, 12]


def test_a_folder_without_any_valid_molecule(methyl: Molecule, tmp_path: Path) -> None:
    write([methyl], [0], tmp_path, {})
    assert evaluate(tmp_path, progress=False)["samples"] == 1


def test_sdf_gz_npz_agree(molecules: list[Molecule], folder: Path, tmp_path: Path) -> None:
    packed = gzip.compress((folder / "molecules.sdf").read_bytes())
    (tmp_path / "all.sdf.gz").write_bytes(packed)
    PackedMolecules.pack(molecules, [""] * len(molecules)).save(tmp_path / "all.npz")
    one, two, three = (
        evaluate(p, progress=False) for p in (folder / "molecules.sdf", tmp_path / "all.sdf.gz", tmp_path / "all.npz")
    )
    assert one == two
    assert three == pytest.approx(one, abs=2e-3)


def test_broken_records_are_failures_with_a_name(folder: Path, tmp_path: Path) -> None:
    records = (folder / "molecules.sdf").read_text().split("$$$$\n")[:4]
    records[1] = records[1].replace("V2000", "V9999")
    records[2] = records[2].replace("3D", "2D", 1)
    path = tmp_path / "mixed.sdf"
    path.write_text("$$$$\n".join(records)[:-1500])
    scores = evaluate(path, progress=False)
    assert scores["samples"] == 4
    assert scores["file_valid"] == 0.25 * (4 - scores["rejected/unreadable"])
    assert scores["rejected/unreadable"] >= 2
    assert any(name.startswith("unreadable/mixed.sdf record 2") for name in scores)
    assert "unreadable/mixed.sdf record 2" in format_table(scores)


def test_truncated_gzip_counts_what_is_lost(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)  # incompressible tags, so that the cut falls between records
    records = (folder / "molecules.sdf").read_text().split("$$$$\n")[:-1]
    noisy = "".join(f"{r}>  <x>\n{rng.bytes(3000).hex()}\n\n$$$$\n" for r in records)
    data = gzip.compress(noisy.encode())
    (tmp_path / "cut.sdf.gz").write_bytes(data[: len(data) // 2])
    scores = evaluate(tmp_path / "cut.sdf.gz", progress=False)
    assert 0 < scores["file_valid"] < 1
    assert scores["rejected/unreadable"] == 1


def test_hydrogens_that_are_left_out_are_missing(tmp_path: Path) -> None:
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.MolFromSmiles("CCO")
    AllChem.EmbedMolecule(mol, randomSeed=1)
    (tmp_path / "bare.sdf").write_text(Chem.MolToMolBlock(mol) + "$$$$\n")
    scores = evaluate(tmp_path / "bare.sdf", progress=False)
    assert scores["generated-bonds/atom_stability"] == 0
    assert scores["generated-bonds/atom_stability/n"] == 3


def test_damaged_xyz_is_a_failure(folder: Path, tmp_path: Path) -> None:
    text = (folder / "rejected.xyz").read_text()
    (tmp_path / "cut.xyz").write_text(text[: len(text) - 40])
    scores = evaluate(tmp_path / "cut.xyz", progress=False)
    assert scores["samples"] == 4
    assert scores["unreadable/cut.xyz frame 4"] == "damaged frame"


def test_reference_gives_geometry_from_test_and_novelty_from_train(molecules: list[Molecule], tmp_path: Path) -> None:
    smiles = [canonical_smiles(to_rdkit(m)) for m in molecules]
    split = [0, 0, 0, 0, 1, 2, 2, 2, 2, 2]
    PackedMolecules.pack(molecules, smiles, split).save(tmp_path / "reference.npz")
    PackedMolecules.pack(molecules[2:6], smiles[2:6]).save(tmp_path / "made.npz")
    scores = evaluate(tmp_path / "made.npz", tmp_path / "reference.npz", progress=False)
    assert scores["reference"] == 5
    assert scores["generated-bonds/novelty"] == 0.5
    assert scores["geometry/bond_length_w1/n"] == sum(int((m.bonds > 0).sum()) // 2 for m in molecules[2:6])
    given = evaluate(tmp_path / "made.npz", tmp_path / "reference.npz", train_smiles=[], progress=False)
    assert given["generated-bonds/novelty"] == 1


def test_sdf_as_reference(folder: Path) -> None:
    scores = evaluate(folder / "molecules.sdf", folder / "molecules.sdf", progress=False)
    assert scores["generated-bonds/novelty"] == 0
    assert scores["geometry/torsion_w1"] == 0


def test_figures_are_fit_for_json(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.sdf").write_text("nonsense\n$$$$\n")
    scores = evaluate(tmp_path / "x.sdf", folder / "molecules.sdf", progress=False)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores["generated-bonds/uniqueness"] is None
    assert format_table(scores)


def test_what_cannot_be_evaluated_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.sdf").write_text("")
    (tmp_path / "empty.xyz").write_text("")
    (tmp_path / "list.smi").write_text("CCO\n")
    (tmp_path / "bad.npz").write_text("PK nonsense")
    (tmp_path / "folder").mkdir()
    for name in ("empty.sdf", "empty.xyz", "list.smi", "bad.npz", "folder", "missing.sdf", "missing.xyz"):
        with pytest.raises(InputError) as error:
            evaluate(tmp_path / name, progress=False)
        assert "\n" not in str(error.value)
        assert name in str(error.value)
    with pytest.raises(InputError, match="posebusters -1"):
        evaluate(tmp_path / "empty.sdf", posebusters=-1)


@pytest.mark.data
@pytest.mark.skipif("MULTIDIFF_DATA" not in os.environ, reason="MULTIDIFF_DATA is not set")
def test_messy_files_of_others() -> None:
    """Every record of every SD file is a sample; none stops the evaluation."""
    folder = Path(os.environ["MULTIDIFF_DATA"]) / "messy" / "molecules"
    counts = {"derived_mixed_valid_invalid.sdf": 11, "derived_mixed_crlf.sdf": 2, "rdkit_NCI_aids_few.sdf.gz": 16}
    for name, count in counts.items():
        scores = evaluate(folder / name, progress=False)
        assert scores["samples"] == count
        assert sum(v for k, v in scores.items() if k.startswith("rejected/")) == count * (1 - scores["file_valid"])
    assert evaluate(folder, progress=False)["samples"] > sum(counts.values())
