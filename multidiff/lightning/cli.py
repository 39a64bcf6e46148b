"""Lightning's command line on our modules: fit, validate, test, predict."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from multidiff.errors import InputError
from multidiff.files import writable_folder
from multidiff.lightning import messages
from multidiff.lightning.callbacks import Checkpoints, Pictures
from multidiff.lightning.checkpoint_io import AtomicCheckpointIO
from multidiff.lightning.module import DiffusionModule


def run(command: str, args: list[str]) -> int:
    """Run one of Lightning's sub-commands with `args` as they stand on the command line.

    Raises:
        InputError: an option, a key or a value in the YAML, the data set or the checkpoint cannot be used.
    """
    if not any(token.startswith(("--config", "-c", "-h", "--help", "--print_config")) for token in args):
        raise InputError(f"{command} needs --config FILE.yaml or the name of a recipe ('multidiff list recipes')")
    _quiet()
    try:
        _cli(command)(
            DiffusionModule,
            lightning.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=[command, *args],
            parser_class=messages.Parser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"enable_model_summary": False},
        )
    except RuntimeError as error:
        raise messages.misfit(error) or error from error
    return 0


def _cli(command: str) -> type[CLI]:
    """Only the sub-command asked for is set up: Lightning reads the trainer's arguments anew for each."""
    skipped = LightningCLI.subcommands()[command]
    return type("CLI", (CLI,), {"subcommands": staticmethod(lambda: {command: skipped})})


class CLI(LightningCLI):
    """Lightning's, with our callbacks and atomic checkpoints in every run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The sections `checkpoints` and `pictures` of the YAML."""
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        parser.add_lightning_class_args(Pictures, "pictures")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """As Lightning's, without its warning that the arguments were handed over."""
        try:
            self.config = parser.parse_args(args)
        except InputError as error:
            raise InputError(messages.shorten(str(error), messages.keys(parser))) from error

    def _parse_ckpt_path(self) -> None:
        """The settings are those of the YAML and the command line; a checkpoint brings weights and the state alone."""
        path = self.config[self.config["subcommand"]].get("ckpt_path")
        if path is None and self.config["subcommand"] != "fit":
            raise InputError(f"{self.config['subcommand']} needs --ckpt_path FILE, a checkpoint that fit saved")
        if path is not None and not Path(path).is_file():
            raise InputError(f"--ckpt_path: no file {path}")

    def instantiate_classes(self) -> None:
        """Build module, data and trainer; what a constructor refuses is the user's to mend."""
        try:
            super().instantiate_classes()
        except InputError:
            raise
        except (ValueError, TypeError, lightning.pytorch.utilities.exceptions.MisconfigurationException) as error:
            raise messages.refused(error) from error

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """A trainer that writes checkpoints atomically, and that logs only where it trains."""
        plugins = self._get(self.config_init, "trainer").get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if self.subcommand != "fit":
            kwargs["logger"] = False
        return super().instantiate_trainer(plugins=[*plugins, AtomicCheckpointIO()], **kwargs)

    def before_fit(self) -> None:
        """Prove that the folder of the run can be written before the data is read."""
        for folder in {self.trainer.default_root_dir, *(lo.save_dir for lo in self.trainer.loggers if lo.save_dir)}:
            writable_folder(folder)


def _quiet() -> None:
    """Leave out what Lightning says of itself: tips, what it found, and warnings that are not the user's to mend."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        r".*isinstance\(treespec, LeafSpec\).*",
        r".*module\(s\) in eval mode at the start of training.*",
        r".*Precision .* is not supported by the model summary.*",
        r".*does not have many workers.*",
        r".*is smaller than the logging interval.*",
        r".*exists and is not empty.*",
        r".*`training_step` returned `None`.*",
        r".*lr_scheduler.step\(\)` before `optimizer.step\(\)`.*",
        r".*torch.jit.*is deprecated.*",
        r".*GPU available but not used.*",
        r".*You defined a `validation_step` but have no.*",
        r".*your dataloader is not resumable.*",  # ours follows from the trainer's own count of batches
        r".*predict returned None.*",
    ):
        warnings.filterwarnings("ignore", message=text)
