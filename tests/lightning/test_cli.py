"""The command line of fit, validate, test and predict: every recipe, and one line for each wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import multidiff
from multidiff import domain
from multidiff.cli import main
from multidiff.cli.fit import with_recipes
from multidiff.lightning import cli, export
from multidiff.lightning.exporting import averaged
from multidiff_molecules.training import MoleculeModule

RECIPES = domain.find("molecules").recipes()
SMALL = ["width 16", "vectors 4", "pair_width 8", "layers 1", "heads 4", "warmup_steps 3"]


def options(data: Path, run: Path, *more: str) -> list[str]:
    """What makes a recipe tiny."""
    model = [token for text in SMALL for token in (f"--model.{text.split()[0]}", text.split()[1])]
    trainer = [
        "--trainer.max_steps",
        "4",
        "--trainer.log_every_n_steps",
        "1",
        "--trainer.val_check_interval",
        "2",
        "--trainer.enable_progress_bar=false",
    ]
    run_in = ["--trainer.default_root_dir", str(run), "--data.path", str(data), "--data.batch_size", "8"]
    return [*model, *trainer, *run_in, *more]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_trains_exports_and_reloads(recipe: str, data_path: Path, tmp_path: Path) -> None:
    args = with_recipes(["--config", recipe, *options(data_path, tmp_path, "--pictures.every_n_steps", "4")])
    assert cli.run("fit", args) == 0
    run = tmp_path / "lightning_logs" / "version_0"
    pipe = multidiff.load(run / "export")
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for name, weight in averaged(saved["state_dict"]).items():
        assert torch.equal(weight, pipe.denoiser.network.state_dict()[name]), name
    again = export(run / "checkpoints" / "last.ckpt", tmp_path / "again")
    one, other = (multidiff.load(folder)(4, seed=0, num_inference_steps=2) for folder in (run / "export", again))
    for a, b in zip(one.molecules, other.molecules, strict=True):
        assert (a.positions == b.positions).all()
        assert (a.atomic_numbers == b.atomic_numbers).all()
    assert json.loads((again / "config.json").read_text())["sizes"] == {"5": 24, "8": 24}
    events = EventAccumulator(str(run)).Reload()
    assert events.Tags()["images"] == ["samples"]
    assert {"train/loss", "val/loss", "train/grad_norm", "train/skipped_steps"} <= set(events.Tags()["scalars"])


def test_outputs_of_the_exported_network_are_those_of_the_average(data_path: Path, fit: Any, tmp_path: Path) -> None:
    trainer = fit(max_epochs=1)
    module = trainer.lightning_module
    assert isinstance(module, MoleculeModule)
    pipe = multidiff.load(tmp_path / "run" / "export")
    x0, space, _ = next(iter(trainer.datamodule.val_dataloader()))
    t = torch.full((len(x0["positions"]),), 0.5, dtype=torch.float64)
    ours, theirs = module.averaged()(x0, t, space=space), pipe.denoiser(x0, t, space=space)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    trained = module.denoiser(x0, t, space=space)
    assert not all(torch.equal(ours[name], trained[name]) for name in ours)


@pytest.fixture(scope="module")
def trained(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Options of a tiny run without a logger, and its checkpoint."""
    run = tmp_path_factory.mktemp("trained")
    args = with_recipes(["--config", "molecules-qm9", *options(data_path, run, "--trainer.logger", "false")])
    assert cli.run("fit", args) == 0
    return args, run / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_other_commands(command: str, trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    args, checkpoint = trained
    assert cli.run(command, [*args, "--ckpt_path", str(checkpoint), "--data.num_samples", "3"]) == 0
    said = capsys.readouterr().out
    if command == "predict":
        assert "of 3 molecules are valid" in said
        assert (checkpoint.parents[1] / "predictions" / "molecules.csv").is_file()
    else:
        assert f"{command[:3] if command == 'validate' else command}/loss" in said


WRONG = [
    (["--model.widht", "3"], "unknown option 'model.widht'; did you mean 'model.width'?"),
    (["--trainer.max_stps", "3"], "unknown option 'trainer.max_stps'; did you mean 'trainer.max_steps'?"),
    (["--model.layers", "x"], "model.layers: 'x' is not allowed; it must be a whole number"),
    (["--model", "no.Such"], "model.class_path: cannot use no.Such"),
    (["--model.times", "unifrm"], "did you mean 'uniform'?"),
    (["--model.heads", "3"], "must be multiples of heads 3"),
    (["--data.path", "absent.npz"], "no data set at absent.npz"),
    (["--data.batch_size", "1000"], "batch size 1000 is larger than the 48 samples"),
    (["--data.batch_size", "0"], "batch size 0 is not allowed"),
    (["--ckpt_path", "absent.ckpt"], "--ckpt_path: no file absent.ckpt"),
    (["--trainer.precision", "bf17"], "trainer.precision: 'bf17' is not allowed"),
    (["--trainer.max_steps", "-5"], "max_steps"),
    (["--checkpoints.every_n_steps", "0"], "checkpoints.every_n_steps 0 is not allowed"),
]


@pytest.mark.parametrize(("wrong", "line"), WRONG, ids=[w[0][0] + "=" + w[0][1] for w in WRONG])
def test_wrong_options_are_one_line(
    wrong: list[str], line: str, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--config", "molecules-qm9", *options(data_path, tmp_path, "--trainer.logger", "false")]
    assert main(["fit", *base, *wrong]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("layers:", "layrs:", "did you mean 'model.layers'?"),
        ("layers: 6", "layers: six", "model.layers: 'six' is not allowed; it must be a whole number"),
        ("trainer:", "traner:", "did you mean 'trainer."),
        ("training.MoleculeModule", "training.MoleculeModul", "cannot use multidiff_molecules.training.MoleculeModul"),
        ("seed_everything: 0", "seed_everything: [", "Problems parsing config"),
    ],
)
def test_wrong_yaml_is_one_line(
    before: str, after: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = RECIPES["molecules-qm9"].read_text()
    assert before in text
    (tmp_path / "mine.yaml").write_text(text.replace(before, after, 1))
    assert main(["fit", "--config", str(tmp_path / "mine.yaml")]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_a_checkpoint_of_another_size_is_one_line(trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    args, checkpoint = trained
    assert main(["fit", *args, "--model.width", "32", "--ckpt_path", str(checkpoint)]) == 2
    assert "--ckpt_path does not fit the model of the YAML: size mismatch" in capsys.readouterr().err


def test_validate_needs_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--config", "molecules-qm9"]) == 2
    assert "validate needs --ckpt_path" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_layers_train_as_the_others_do(data_path: Path, fit: Any) -> None:
    """A minute a shape on a CPU: the compiler is that of C++ there."""
    eager, compiled = (
        fit(name=str(on), max_epochs=-1, max_steps=2, limit_val_batches=0, model={"compile": on}).lightning_module
        for on in (False, True)
    )
    for name, weight in eager.state_dict().items():
        assert torch.allclose(weight, compiled.state_dict()[name], atol=1e-5), name
