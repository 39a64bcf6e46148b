"""The files hold every sample once, exactly as generated, with its recipe; nothing in a sample can break them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rdkit")

from PIL import Image
from rdkit import Chem

from multidiff.errors import InputError
from multidiff_molecules.chemistry import canonical_smiles, from_rdkit, to_rdkit
from multidiff_molecules.molecule import Molecule
from multidiff_molecules.output import write
from multidiff_molecules.render import grid_png

RECIPE = {"checkpoint": "molecules-qm9", "seed": 7, "settings": {"steps": 50, "solver": "dpm++2m"}}


@pytest.fixture(scope="module")
def batch(molecules: list[Molecule], methyl: Molecule) -> list[Molecule]:
    """Ten good molecules, then a radical, a lost one, one beyond all bounds, loose atoms, and an impossible one."""
    nan = replace(molecules[0], positions=molecules[0].positions * np.nan)
    far = replace(molecules[1], positions=molecules[1].positions * np.float32(1e30))
    loose = replace(molecules[2], bonds=np.zeros_like(molecules[2].bonds))
    odd = replace(molecules[3], atomic_numbers=np.zeros_like(molecules[3].atomic_numbers))
    return [*molecules, methyl, nan, far, loose, odd]


@pytest.fixture(scope="module")
def written(batch: list[Molecule], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("out") / "new" / "folder"
    return folder, write(batch, range(100, 115), folder, RECIPE)


def test_every_sample_is_in_one_file(written: tuple[Path, dict[str, Any]]) -> None:
    folder, counts = written
    assert counts == {
        "samples": 15,
        "valid": 10,
        "rejected": 5,
        "reasons": {
            "radical electrons": 1,
            "non-finite coordinates": 1,
            "coordinates out of range": 1,
            "not connected": 1,
            "unknown element": 1,
        },
    }
    kept = [int(m.GetProp("sample")) for m in Chem.SDMolSupplier(str(folder / "molecules.sdf"), removeHs=False)]
    comments = [line for line in (folder / "rejected.xyz").read_text().splitlines() if line.startswith("sample=")]
    lost = [int(line.split()[0].removeprefix("sample=")) for line in comments]
    assert kept == list(range(100, 110))
    assert lost == list(range(110, 115))
    assert 'reason="radical electrons"' in comments[0]
    assert sorted(p.name for p in folder.iterdir()) == [
        "molecules.csv",
        "molecules.png",
        "molecules.sdf",
        "rejected.xyz",
    ]


def test_sdf_reads_back_as_generated(written: tuple[Path, dict[str, Any]], molecules: list[Molecule]) -> None:
    """Atoms, charges and the very Kekule form; a reader that sanitises sees the same stereo."""
    path = str(written[0] / "molecules.sdf")
    exact = Chem.SDMolSupplier(path, removeHs=False, sanitize=False)
    for molecule, mol, read in zip(molecules, exact, Chem.SDMolSupplier(path, removeHs=False), strict=True):
        back = from_rdkit(mol)
        np.testing.assert_array_equal(back.atomic_numbers, molecule.atomic_numbers)
        np.testing.assert_array_equal(back.formal_charges, molecule.formal_charges)
        np.testing.assert_array_equal(back.bonds, molecule.bonds)
        np.testing.assert_allclose(back.positions, molecule.positions, atol=5.1e-5)
        assert canonical_smiles(read) == canonical_smiles(to_rdkit(molecule)) == read.GetProp("smiles")
        assert read.GetConformer().Is3D()


def test_each_record_carries_properties_and_recipe(written: tuple[Path, dict[str, Any]]) -> None:
    for mol in Chem.SDMolSupplier(str(written[0] / "molecules.sdf"), removeHs=False):
        tags = mol.GetPropsAsDict()
        assert tags["checkpoint"] == "molecules-qm9"
        assert tags["seed"] == 7
        assert json.loads(tags["settings"]) == RECIPE["settings"]
        assert 0 < tags["qed"] < 1
        assert {"molecular_weight", "logp", "sa_score", "tpsa", "rings", "lipinski_violations"} <= tags.keys()


def test_table_has_a_row_a_sample(written: tuple[Path, dict[str, Any]]) -> None:
    with open(written[0] / "molecules.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in rows] == list(range(100, 115))
    assert [row["valid"] for row in rows] == ["1"] * 10 + ["0"] * 5
    assert all((row["valid"] == "1") == (row["reason"] == "") == (row["qed"] != "") for row in rows)
    assert rows[1]["smiles"] == "c1ccccc1"
    assert rows[1]["formula"] == "C6H6"


def test_picture_shows_molecules_and_carries_the_recipe(written: tuple[Path, dict[str, Any]]) -> None:
    picture = Image.open(written[0] / "molecules.png")
    assert json.loads(picture.text["recipe"]) == RECIPE
    assert json.loads(picture.text["samples"]) == list(range(100, 110))
    pixels = np.asarray(picture.convert("RGB"), int)
    assert (np.ptp(pixels, axis=2) > 150).sum() > 200  # coloured heteroatoms
    assert (pixels.sum(2) < 60).sum() > 1000  # black bonds


def test_same_samples_same_bytes(batch: list[Molecule], written: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    write(batch, range(100, 115), tmp_path, RECIPE)
    for name in ("molecules.csv", "molecules.png", "rejected.xyz"):
        assert (tmp_path / name).read_bytes() == (written[0] / name).read_bytes()
    assert _records(tmp_path) == _records(written[0])


def _records(folder: Path) -> list[str]:
    return (folder / "molecules.sdf").read_text().splitlines()


def test_nothing_valid(batch: list[Molecule], tmp_path: Path) -> None:
    assert write(batch[10:], range(5), tmp_path, {})["valid"] == 0
    assert (tmp_path / "molecules.sdf").read_text() == ""
    assert Image.open(tmp_path / "molecules.png").width > 100
    assert write([], [], tmp_path, {})["samples"] == 0
    assert (tmp_path / "rejected.xyz").read_text() == ""


def test_a_recipe_cannot_break_a_record(molecules: list[Molecule], tmp_path: Path) -> None:
    prompt = 'two\n\nlines $$$$\n$$$$ and a "quote"\n>  <sample>\n9'
    write(molecules[:2], [0, 1], tmp_path, {"prompt": prompt, "sample": 99, "odd><name\n": Path("x"), "none": ""})
    read = list(Chem.SDMolSupplier(str(tmp_path / "molecules.sdf"), removeHs=False))
    assert [m.GetProp("sample") for m in read] == ["0", "1"]
    assert json.loads(json.dumps(read[0].GetProp("prompt"))).startswith("two lines")


def test_mismatched_indices_and_bad_folder(molecules: list[Molecule], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        write(molecules, [0, 1], tmp_path, {})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write(molecules, range(10), tmp_path / "file", {})


def test_an_old_file_survives_a_failed_write(
    molecules: list[Molecule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(molecules[:1], [0], tmp_path, {})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr("os.replace", _full_disk)
    with pytest.raises(InputError, match="disk full"):
        write(molecules, range(10), tmp_path, {})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def _full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_long_lines_fit_their_card(molecules: list[Molecule]) -> None:
    picture = Image.open(io.BytesIO(grid_png([(to_rdkit(molecules[0]), "C" * 300, "")])))
    pixels = np.asarray(picture.convert("L"), int)
    assert pixels[:, :14].min() > 200  # nothing dark in the margins
    assert pixels[:, -14:].min() > 200
