"""The folder of a training run: what is written to it, locking and resumption."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from filelock import FileLock, Timeout

from hcm_hf.data.dataset import read_preparation
from hcm_hf.data.identity import Identities, read_identities
from hcm_hf.data.slices import SliceBatch, Slices
from hcm_hf.training.checkpoint import STATE_FILE, TrainingState
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.curves import loss_curves, read_metrics
from hcm_hf.utils.devices import describe_environment
from hcm_hf.utils.errors import Diverged, InputError
from hcm_hf.utils.files import explained, read_json, replacing, require_empty, restore, sync, write_sums, write_text
from hcm_hf.utils.hub import parse_repository
from hcm_hf.utils.names import CONFIG_FILE, TARGET_GROUP
from hcm_hf.utils.pictures import image_grid, save_png
from hcm_hf.version import __version__


METRICS_FILE, LOSS_FIGURE, LOCK_FILE = "metrics.jsonl", "losses.png", ".lock"
LOCK_SECONDS = 10  # how long to wait for a run that is stopping
# What may differ between a run and its resumption; the dataset's fingerprint stands for the dataset.
_FREE = {
    *(
        "output_dir",
        "dataset",
        "teacher",
        "guide",
        "num_epochs",
        "num_steps",
        "patience",
        "report_to",
        "checkpointing_epochs",
    ),
    *("sample_epochs", "version", "environment", "train_patients", "num_train_slices"),
    *("dataset_repository", "dataset_source", "dataset_license"),
}


@dataclass
class Run:
    """The folder of a training run; only the main process writes to it.

    Attributes:
        accelerator: knows the main process and the trackers.
        output_dir: the folder.
        written: the resolved configuration.
        state: what is being trained.
        validation: the held-out slices, on the device.
    """

    accelerator: Accelerator
    output_dir: Path
    written: dict
    state: TrainingState
    validation: SliceBatch

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Lock the folder for this run, after checking that it is empty or holds the same run.

        The configuration is written, but not `finished`: only `finish` writes that.

        Raises:
            InputError: if the folder holds another run or something else, is in use, or cannot be written.
        """
        self._check()
        self.accelerator.wait_for_everyone()  # every process has checked before the first one writes
        lock = FileLock(self.output_dir / LOCK_FILE, timeout=LOCK_SECONDS)
        refusal = None
        if self.accelerator.is_main_process:
            try:
                self._take(lock)
            except InputError as error:
                refusal = str(error)
        try:
            if refusal := broadcast_object_list([refusal])[0]:
                raise InputError(refusal)
            yield
        finally:
            lock.release()

    def _check(self) -> None:
        path = self.output_dir / CONFIG_FILE
        with explained(path):
            there = path.exists()
        if not there:
            require_empty(self.output_dir, "output_dir", besides=LOCK_FILE)
            return
        before = read_json(path)
        if "target_group" not in before:  # it was always this one, and the sizes followed from the recipe alone
            before |= {"target_group": TARGET_GROUP, "sizes": self.written["sizes"]}
        for name, value in self.written.items():
            if name not in _FREE and before.get(name) != value:
                other = f"with {name} {before.get(name)}, not {value}"
                if name == "dataset_fingerprint":  # hashes say nothing to a reader
                    other = f"on other slices than those of dataset {self.written['dataset']}"
                raise InputError(f"{self.output_dir} holds a run {other}; choose another output_dir.")

    def _take(self, lock: FileLock) -> None:
        try:
            with explained(self.output_dir, "write"):
                self.output_dir.mkdir(parents=True, exist_ok=True)
                lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{self.output_dir} is in use by another training run; wait for it or stop it."
            ) from error
        self._check()  # another run may have begun here since
        for name in ("best", "last"):
            restore(self.output_dir / name)
        write_text(self.output_dir / CONFIG_FILE, json.dumps(self.written, indent=2) + "\n")

    def resume(self) -> None:
        """Load the last checkpoint, if there is one, and drop the metrics of later steps."""
        state = self.state
        if (self.output_dir / "last" / STATE_FILE).exists():
            state.load(self.output_dir / "last")
            self.accelerator.print(f"Resuming {self.output_dir} after step {state.progress.step}.")
        if self.accelerator.is_main_process:
            _cut_metrics(self.output_dir / METRICS_FILE, state.progress.step)
        self.accelerator.init_trackers("hcm_hf", config={key: str(value) for key, value in self.written.items()})

    def log(self, record: dict[str, float], epoch: int) -> None:
        """Append a record to metrics.jsonl and log it to the trackers."""
        step = self.state.progress.step
        if self.accelerator.is_main_process:
            path = self.output_dir / METRICS_FILE
            with explained(path, "write"), open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "epoch": epoch, **record}) + "\n")
        self.accelerator.log(record, step=step)

    @torch.no_grad()
    def validate(self, epoch: int) -> None:
        """Compute the validation loss of the averaged weights; save them as `best/` if it is the lowest so far."""
        state, progress = self.state, self.state.progress
        loss, details = torch.zeros((), device=self.accelerator.device), {}
        if self.accelerator.is_main_process:
            state.objective.eval()
            with state.average.applied():
                loss += state.objective.validation_loss(self.validation).to(loss)
                details = state.objective.validation_details(self.validation)
            state.objective.train()
        loss = broadcast(loss).item()
        check_finite({"validation_loss": loss}, progress.step)
        self.log({"validation_loss": loss} | details, epoch)
        if loss < progress.best_loss:
            progress.best_step, progress.best_loss = progress.step, loss
            self.save("best", with_state=False)

    def sample(self, epoch: int) -> None:
        """Write a grid of 16 images from fixed noise."""
        if self.accelerator.is_main_process:
            with self.state.average.applied():
                images = self.state.objective.preview(self.validation)
            grid = image_grid([images[:8, :, :, 0], images[8:, :, :, 0]])
            save_png(grid, self.output_dir / "samples" / f"epoch-{epoch:04d}.png")

    def save(self, name: str, with_state: bool = True) -> None:
        """Save the pipeline with the averaged weights and, if `with_state`, the state to resume from."""
        if self.accelerator.is_main_process:
            with replacing(self.output_dir / name) as temporary:
                with self.state.average.applied():
                    self.state.objective.pipeline().save_pretrained(temporary)
                self._note_progress(temporary)
                if with_state:
                    self.state.save(temporary)
                    sync(self.output_dir / METRICS_FILE)
                write_sums(temporary)
        self.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """Draw the loss curves and record that the run is finished."""
        if self.accelerator.is_main_process:
            loss_curves(self.output_dir / METRICS_FILE, self.output_dir / LOSS_FIGURE)
            self._note_progress(self.output_dir, finished=True)

    def _note_progress(self, folder: Path, **facts: bool) -> None:
        progress = dict(vars(self.state.progress))
        if not math.isfinite(progress["best_loss"]):
            progress["best_loss"] = None  # not validated yet; JSON has no infinity
        written = json.dumps(self.written | facts | {"progress": progress}, indent=2, allow_nan=False)
        write_text(folder / CONFIG_FILE, written + "\n")


def check_finite(losses: dict[str, float], step: int) -> None:
    """Raise `Diverged`, naming the loss, if one is not finite."""
    for name, value in losses.items():
        if not math.isfinite(value):
            raise Diverged(
                f"{name} is {value} at step {step}: training diverged; start again with a lower learning_rate and "
                "another output_dir."
            )


def resolved_config(
    config: TrainingConfig,
    settings: dict,
    train_slices: Slices,
    validation_slices: Slices,
    dataset_license: str,
    accelerator: Accelerator,
) -> dict:
    """The resolved configuration, as training_config.json records it; it includes the training patients.

    `settings` are those of the recipe.
    """
    resolved = asdict(config) | settings
    resolved |= {
        "resolution": train_slices.images.shape[-1],
        "dataset_fingerprint": train_slices.fingerprint() + validation_slices.fingerprint(),
        "train_patients": train_slices.identities() | _behind(config.dataset),
        "num_train_slices": len(train_slices),
        "dataset_repository": config.dataset and (parse_repository(config.dataset) or (None,))[0],
        "dataset_source": read_preparation(config.dataset).get("source", "other"),
        "dataset_license": dataset_license,
        "version": __version__,
        "environment": describe_environment(accelerator.device),
    }
    resolved["dataset"] = config.dataset or "synthetic"
    resolved |= {"mixed_precision": accelerator.mixed_precision, "num_processes": accelerator.num_processes}
    return json.loads(json.dumps(resolved))


def _behind(dataset: str | None) -> Identities:
    """The training patients of the generator that made the dataset; none if it holds real slices."""
    seen = (read_preparation(dataset).get("generator") or {}).get("train_patients", {})
    known = read_identities(seen, f"The generator of dataset {dataset}")
    return {f"generator:{name}": volumes for name, volumes in known.items()}


def _cut_metrics(path: Path, step: int) -> None:
    """Drop the records after `step`, which will be computed again."""
    if path.exists():
        kept = [record for record in read_metrics(path) if record["step"] <= step]
        write_text(path, "".join(f"{json.dumps(record)}\n" for record in kept))
