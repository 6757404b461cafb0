"""What a training run says of itself while it goes.

In: the metrics of every step, figures of validations, sessions to look at. Out: ``metrics.jsonl``
(one JSON object a line), sessions as pages under ``samples/``, the same for TensorBoard under
``events/``, and a line in the log or, on a terminal, a bar.
"""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping

import numpy as np
import PIL.Image
import rich.console
import rich.progress
import soundfile
from absl import logging
from tensorboardX import SummaryWriter

from interaction.session.record import SessionRecord
from interaction.session.report import write_report


class Recorder:
    """Metrics to files, log and terminal, fetched one step late so that the device never waits.

    Args:
        workdir: folder of the run.
        steps: steps of the whole run.
        every: steps between lines.
        writes: whether this process writes; in a job of many only one does.
    """

    def __init__(self, workdir: pathlib.Path, *, steps: int, every: int, writes: bool = True):
        self.waited = 0.0
        self.workdir = workdir
        self._steps, self._every, self._writes = steps, every, writes
        self._pending: tuple[int, Mapping] | None = None
        self._since, self._done = time.monotonic(), 0
        self._events = SummaryWriter(str(workdir / "events")) if writes else None
        self._shown = writes and sys.stderr.isatty()
        self._bar = rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(),
            rich.progress.TextColumn("{task.fields[said]}"),
            console=rich.console.Console(stderr=True),
            disable=not self._shown,
        )
        self._task = self._bar.add_task("steps", total=steps, said="")

    def __enter__(self) -> "Recorder":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()
        if self._events is not None:
            self._events.close()

    def add(self, step: int, metrics: Mapping) -> None:
        """Take the metrics of `step`; report those of the step before."""
        self.flush()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Report what is pending; waits for its step.

        Raises:
            FloatingPointError: the loss or the gradient's norm is not a number.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._report(*pending)

    def _report(self, step: int, metrics: Mapping) -> None:
        load = np.asarray(metrics.get("load", np.zeros((0, 0))))
        values = {name: float(value) for name, value in metrics.items() if name != "load"}
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(values[name]):
                raise FloatingPointError(f"{name} is {values[name]} at step {step}")
        self._done += 1
        self._bar.update(self._task, completed=step, said=f"loss {values['loss']:.4g}")
        if step % self._every:
            return
        elapsed = time.monotonic() - self._since
        values["seconds_per_step"] = elapsed / self._done
        values["share_waiting_for_data"] = self.waited / elapsed
        self._since, self._done, self.waited = time.monotonic(), 0, 0.0
        if load.size:
            values["expert_load_max"] = float(load.max())
            for layer, row in enumerate(load):
                self._scalars(f"expert_load/layer_{layer}", step, dict(enumerate(row.tolist())))
        self.write(step, values)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line of JSON, one in the log, one point of every curve."""
        if not self._writes:
            return
        line = {"step": step, **values}
        with (self.workdir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._scalars("", step, values)
        if not self._shown:
            shown = " ".join(f"{name}={value:.4g}" for name, value in values.items())
            logging.info("%d/%d %s", step, self._steps, shown)

    def _scalars(self, prefix: str, step: int, values: Mapping) -> None:
        if self._events is None:
            return
        for name, value in values.items():
            self._events.add_scalar(f"{prefix}/{name}" if prefix else str(name), value, step)

    def sample(self, step: int, name: str, record: SessionRecord) -> None:
        """A session of the model as it is: its report under ``samples/``, sound and picture too."""
        if self._events is None:
            return
        folder = self.workdir / "samples" / f"{step:07d}_{name}"
        files = write_report(record, folder, title=f"{name}, step {step}", inputs={})
        with PIL.Image.open(files.timeline) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._events.add_image(f"sample/{name}", pixels, step, dataformats="HWC")
        both, rate = soundfile.read(files.conversation, dtype="float32")
        self._events.add_audio(f"sample/{name}", both.mean(axis=1), step, sample_rate=rate)
