"""Lightning's command line on our modules: fit, validate, test, predict."""

from __future__ import annotations

import lightning
from lightning.pytorch.cli import LightningCLI

from multidiff.lightning.module import DiffusionModule


def run(command: str, args: list[str]) -> int:
    """Run one of Lightning's sub-commands with `args` as they stand on the command line."""
    LightningCLI(
        DiffusionModule,
        lightning.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        args=[command, *args],
        save_config_kwargs={"overwrite": True},
    )
    return 0
