"""What every training run does besides training: checkpoints, signals, a stop when it diverges, pictures."""

from __future__ import annotations

import io
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, Checkpoint

from multidiff.errors import InputError
from multidiff.files import writable_folder
from multidiff.lightning.exporting import averaged, write
from multidiff.lightning.module import DiffusionModule

LAST = "last.ckpt"
TOLERATED = 5
"""Steps in a row that may be left out because their gradient is not finite."""
TOLERATED_SCALED = 20
"""The same where the loss is scaled: the scale starts too high and is halved at each overflow, 2^16 at first."""


class Checkpoints(Checkpoint):
    """`last.ckpt` every so often, on SIGTERM and Ctrl-C and at the end; then the folder for use.

    Every checkpoint is taken at the end of a batch after which the optimiser has stepped, where a resumed run goes on
    exactly as this one would have.

    Args:
        every_n_steps: optimiser steps between two checkpoints.
        folder: where `last.ckpt` is put; by default `checkpoints` in the folder of the run.
    """

    def __init__(self, every_n_steps: int = 500, folder: str | None = None) -> None:
        if every_n_steps < 1:
            raise InputError(f"checkpoints.every_n_steps {every_n_steps} is not allowed: at least 1")
        self.every_n_steps, self.folder = every_n_steps, folder
        self.last = Path(LAST)
        self.saved_at, self.due = -1, False
        self.signals = _Signals()

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Prove, before any work, that the folders can be written."""
        if stage == "fit" and not _trial(trainer):
            run = run_folder(trainer)
            self.last = Path(self.folder or run / "checkpoints") / LAST
            if trainer.is_global_zero:
                writable_folder(run)
                writable_folder(self.last.parent)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.signals.watch()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is due; stop where a signal or too many steps left out ask for it."""
        if trainer.fit_loop._should_accumulate():
            return
        self._check_finite(trainer, pl_module)
        self.due |= trainer.global_step % self.every_n_steps == 0 or 0 <= trainer.max_steps <= trainer.global_step
        # Lightning miscounts epochs when it resumes from the last batch of one; what is due there waits for its end.
        if not trainer.fit_loop.epoch_loop._num_ready_batches_reached():
            self._act(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._act(trainer)

    def _act(self, trainer: lightning.Trainer) -> None:
        stop = self._stop_signal(trainer)
        if stop or self.due:
            self._save(trainer)
        if stop:
            self._stop(trainer, stop)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save if that is not done, and write the averaged weights as a checkpoint folder."""
        if _trial(trainer) or trainer.global_step == 0:
            return
        self._save(trainer)
        if trainer.is_global_zero and isinstance(pl_module, DiffusionModule):
            folder = run_folder(trainer) / "export"
            write(folder, pl_module.export_config(), averaged(pl_module.state_dict()), trainer.global_step)
            _say(f"finished after {trainer.global_step} steps; the averaged weights are in {folder}")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.signals.release()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.signals.release()

    def _save(self, trainer: lightning.Trainer) -> None:
        if self.saved_at != trainer.global_step and not _trial(trainer):
            trainer.save_checkpoint(self.last)
            self.saved_at, self.due = trainer.global_step, False

    def _stop_signal(self, trainer: lightning.Trainer) -> int:
        """The signal that asks to stop, or 0; the same answer on every rank."""
        received = self.signals.received or (signal.SIGTERM if trainer.received_sigterm else 0)
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(bool(received), all=False):
            return received or signal.SIGTERM
        return received

    def _stop(self, trainer: lightning.Trainer, number: int) -> None:
        what = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        _say(
            f"{what}: stopped after step {trainer.global_step}, nothing is lost; "
            f"go on with the same command and --ckpt_path {self.last}"
        )
        raise SystemExit(128 + number)

    def _check_finite(self, trainer: lightning.Trainer, module: Any) -> None:
        """Reading the count waits for the device, so on a GPU it is read at every tenth step."""
        if not isinstance(module, DiffusionModule) or (module.device.type != "cpu" and trainer.global_step % 10):
            return
        tolerated = TOLERATED_SCALED if module.scales_loss else TOLERATED
        in_a_row = int(module.skipped[1])
        if in_a_row < tolerated:
            return
        kept = f"the last good checkpoint is {self.last}" if self.last.is_file() else "there is no checkpoint yet"
        raise InputError(
            f"step {trainer.global_step}: the gradient was not finite {in_a_row} times in a row (no step was made); "
            f"{kept}; lower model.learning_rate or look at the data"
        )


def run_folder(trainer: lightning.Trainer) -> Path:
    """Where a run's files go: the logger's folder, or `default_root_dir` where there is no logger."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def _trial(trainer: lightning.Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))


def _say(line: str) -> None:
    print(f"multidiff: {line}", file=sys.stderr, flush=True)


class _Signals:
    """Remembers SIGTERM and the first Ctrl-C; the second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.received = 0
        self.before: dict[int, Any] = {}

    def watch(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def release(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received:
            raise KeyboardInterrupt
        self.received = self.received or number


class Pictures(Callback):
    """Samples of the averaged weights, as an image of the TensorBoard logger.

    Args:
        every_n_steps: optimiser steps between two pictures; 0 for none.
        count: samples in a picture.
    """

    def __init__(self, every_n_steps: int = 1000, count: int = 8) -> None:
        if every_n_steps < 0 or count < 1:
            raise InputError(f"pictures: every_n_steps {every_n_steps} (0 or more), count {count} (1 or more)")
        self.every_n_steps, self.count = every_n_steps, count
        self.drawn_at = -1

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not self.every_n_steps or step % self.every_n_steps or step in (0, self.drawn_at):
            return
        self.drawn_at = step
        found = [getattr(logger, "experiment", None) for logger in trainer.loggers]
        writers = [writer for writer in found if hasattr(writer, "add_image")]
        if writers and trainer.is_global_zero and isinstance(pl_module, DiffusionModule):
            self._draw(pl_module, writers, step)

    def _draw(self, module: DiffusionModule, writers: list[Any], step: int) -> None:
        import numpy as np
        from PIL import Image

        png: bytes | None = None
        try:
            png = module.picture(self.count)
        except Exception as error:  # a picture is never worth a run
            _say(f"no picture at step {step}: {str(error).partition(chr(10))[0]}")
        if png:
            pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
            for writer in writers:
                writer.add_image("samples", pixels, step, dataformats="HWC")
