"""The training loop, which runs any family's objective on any device that accelerate supports.

Progress is one integer, `step`. The random numbers and the data of step n are functions of (seed, n) and shared by
all processes. So running the same command again resumes, and a resumed run equals an uninterrupted one.
"""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from tqdm.auto import tqdm

from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.slices import Slices
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model, read_training
from hcm_hf.training.checkpoint import Progress, TrainingState
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.ema import AveragedWeights
from hcm_hf.training.recipe import Recipe
from hcm_hf.training.recipes import resolve
from hcm_hf.training.run import Run, check_finite, resolved_config
from hcm_hf.utils.devices import make_accelerator, random_state_kept
from hcm_hf.utils.errors import InputError, Interrupted
from hcm_hf.utils.process import count_cores, stop_signals


@random_state_kept()
def train(config: TrainingConfig, recipe: Recipe | None = None) -> Path:
    """Train a family and save its best pipeline, or resume the run in `config.output_dir`.

    The run's folder holds `best/` (lowest validation loss) and `last/` (with the state to resume from), both pipelines
    for `HCMPipeline.from_pretrained`; `training_config.json`, which says `finished` after the last step;
    `metrics.jsonl`, `losses.png` and `samples/`. The caller's random state stays as it was.

    Args:
        config: the settings.
        recipe: what to train, in place of the recipe that `config` names; the settings of `config` override its own.

    Returns:
        The run's folder.

    Raises:
        InputError: on bad arguments or data, before anything is written, or if the disk is full.
        Diverged: if a loss is not finite; the last checkpoint stays.
        Interrupted: on SIGINT, SIGTERM, SIGHUP or SIGUSR1, after the state is saved.
    """
    recipe = resolve(config, recipe)
    output_dir = Path(config.output_dir or f"runs/{config.family}")
    accelerator = _accelerator(config, output_dir)
    _warn_of_idle_cores(accelerator)

    # Read the slices.
    with accelerator.main_process_first() if config.dataset is None else nullcontext():  # one process writes it
        dataset = load_dataset(config.dataset, config.resolution)
    vocabulary = Vocabulary.of(dataset, config.target_group)
    groups = vocabulary.choose(recipe.groups)
    train_slices, validation_slices = (Slices(dataset[split], groups) for split in ("train", "validation"))
    if len(validation_slices) < 2:
        raise InputError(
            f"The validation split holds {len(validation_slices)} slice of {groups}; prepare more patients."
        )
    settings, dataset_license = recipe.settings(vocabulary), dataset["train"].info.license
    written = resolved_config(config, settings, train_slices, validation_slices, dataset_license, accelerator)

    # Build the networks, their optimizers and the state that ties them together.
    teachers = {}
    if recipe.taught_by is not None:
        written["guide_hash"] = None  # a run without a guide does not go on with one, nor the reverse
    for name, folder in _teachers(config, recipe, written["dataset_fingerprint"]).items():
        teachers[name] = HCMPipeline.from_pretrained(folder, device=accelerator.device)
        written[f"{name}_hash"] = hash_model(folder)
    torch.manual_seed(config.seed)
    try:
        objective = recipe.build(written["resolution"], vocabulary, teachers).to(accelerator.device)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{config.family} cannot be built for this dataset: {error}") from error
    optimizers = {
        name: accelerator.prepare(
            torch.optim.Adam(network.parameters(), lr=recipe.rate_of(name), betas=recipe.adam_betas)
        )
        for name, network in objective.named_children()
    }
    average = AveragedWeights(objective.get_submodule(objective.sampled), recipe.ema_decay)
    state = TrainingState(objective, average, optimizers, accelerator.scaler, Progress())
    run = Run(accelerator, output_dir, written, state, validation_slices.batch(slice(None)).to(accelerator.device))
    with (
        run.claimed(),
        _stop_requests() as stop,
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        run.resume()
        _loop(run, recipe, train_slices, config, stop)
        run.finish()
    for tracker in accelerator.trackers:  # end_training would end the process group too, and with it the caller's
        tracker.finish()
    return output_dir


def _loop(run: Run, recipe: Recipe, slices: Slices, config: TrainingConfig, stop: dict[str, int]) -> None:
    accelerator, state, progress = run.accelerator, run.state, run.state.progress
    batch_size = recipe.train_batch_size * accelerator.num_processes
    epoch_steps = -(-len(slices) // batch_size)  # an epoch is one pass, rounded up to whole batches
    num_steps, patience = recipe.num_epochs * epoch_steps, float(recipe.patience * epoch_steps)
    if recipe.num_steps is not None:
        num_steps, patience = recipe.num_steps, math.inf

    def finished() -> bool:
        return progress.step >= num_steps or progress.step - progress.best_step >= patience

    accelerator.print(
        f"{config.family}, recipe {config.recipe}: {len(slices)} slices, {accelerator.num_processes} process(es) with "
        f"{recipe.train_batch_size} slices a step each on {accelerator.device}, {num_steps} steps."
    )
    started = time.monotonic() - progress.seconds
    silent = not accelerator.is_local_main_process
    bar = tqdm(total=num_steps, initial=progress.step, desc=config.family, unit="step", disable=silent)
    launcher = os.getppid()
    state.objective.train()
    while not finished():
        # One optimisation step per loss that the objective yields.
        torch.manual_seed(step_seed(config.seed, progress.step))
        process = accelerator.process_index, accelerator.num_processes
        indices = batch_indices(len(slices), batch_size, progress.step, config.seed, *process)
        batch = replace(slices.batch(indices, *process), gather=accelerator.gather).to(accelerator.device)
        losses = state.objective.losses(batch)
        record = {}
        while (item := _next(losses, accelerator)) is not None:
            network, loss = item
            optimizer = state.optimizers[network]
            optimizer.zero_grad()
            accelerator.backward(loss)
            _average_gradients(state.objective.get_submodule(network), accelerator)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_of(network, progress.step / num_steps)
            optimizer.step()
            record[f"{network}_loss"] = loss.detach()
        progress.step += 1
        state.average.update(progress.step)

        # Log.
        values = accelerator.reduce(torch.stack(list(record.values())), "mean").tolist()
        logged = dict(zip(record, values, strict=True))
        check_finite(logged, progress.step)
        bar.update()
        bar.set_postfix({name: f"{value:.3f}" for name, value in logged.items()}, refresh=False)
        run.log(logged, -(-progress.step // epoch_steps))

        # Validate at the end of an epoch and save the best; save a checkpoint at intervals and on a signal.
        epoch, within = divmod(progress.step, epoch_steps)
        signal_number = _agreed(stop["signal"] or _launcher_ended(launcher), accelerator)
        progress.seconds = time.monotonic() - started
        if within == 0:
            run.validate(epoch)
            if epoch % config.sample_epochs == 0:
                run.sample(epoch)
        if signal_number or finished() or (within == 0 and epoch % config.checkpointing_epochs == 0):
            run.save("last")
        if signal_number:
            bar.close()
            message = f"Stopped by {signal.Signals(signal_number).name} after step {progress.step} of {num_steps}"
            raise Interrupted(f"{message}; run the same command to go on.", signal_number)
    bar.close()
    accelerator.print(
        f"Trained {progress.step} of {num_steps} steps in {progress.seconds:.0f} s; best validation loss "
        f"{progress.best_loss:.5g} at step {progress.best_step}."
    )


def batch_indices(
    length: int, batch_size: int, step: int, seed: int, process_index: int = 0, num_processes: int = 1
) -> np.ndarray:
    """One process's indices of batch `step`, from an endless stream of shuffled passes over `length` items.

    All processes together take `batch_size` a step; each takes every `num_processes`-th of them.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)[process_index::num_processes]
    places = zip(*divmod(positions, length), strict=True)
    return np.array([_permutation(length, seed, int(epoch))[offset] for epoch, offset in places])


def step_seed(seed: int, step: int) -> int:
    """The seed of one step's random numbers, the same in all processes; see `SliceBatch.draw`."""
    # The 0 keeps this stream apart from that of the data order, which is seeded with (seed, epoch).
    return int(np.random.SeedSequence([seed, 0, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def _next(losses: Iterator[tuple[str, torch.Tensor]], accelerator: Accelerator) -> tuple[str, torch.Tensor] | None:
    with accelerator.autocast():
        return next(losses, None)


def _average_gradients(network: torch.nn.Module, accelerator: Accelerator) -> None:
    """Average gradients over processes in one message, not one for each parameter.

    There is no wrapper such as DistributedDataParallel: an objective may call any method of its networks.
    """
    if accelerator.num_processes > 1:
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        together = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        for gradient, averaged in zip(gradients, together.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(averaged.view_as(gradient))


def _agreed(signal_number: int, accelerator: Accelerator) -> int:
    """The highest signal that any process received, so that all stop at the same step."""
    if accelerator.num_processes == 1:
        return signal_number
    return int(accelerator.gather(torch.tensor([signal_number], device=accelerator.device)).max())


def _launcher_ended(launcher: int) -> int:
    """SIGTERM if `accelerate launch`, which passes no signal on, has ended before this process; else 0."""
    return signal.SIGTERM if "ACCELERATE_MIXED_PRECISION" in os.environ and os.getppid() != launcher else 0


@contextmanager
def _stop_requests() -> Iterator[dict[str, int]]:
    """Record a signal that asks to stop, for the loop to read; a second signal acts at once."""
    stop = {"signal": 0}

    def note(signal_number: int, frame: FrameType | None) -> None:
        stop["signal"] = signal_number
        signal.signal(signal_number, before[signal.Signals(signal_number)])

    with stop_signals(note) as before:
        yield stop


def _accelerator(config: TrainingConfig, output_dir: Path) -> Accelerator:
    available = [str(tracker) for tracker in get_available_trackers()]
    for tracker in config.report_to:
        if tracker not in available:
            raise InputError(f"The tracker {tracker} of report_to is not installed; run pip install {tracker}.")
    return make_accelerator(config.mixed_precision, config.report_to, output_dir / "logs")


def _warn_of_idle_cores(accelerator: Accelerator) -> None:
    cores = count_cores() // accelerator.num_processes
    if accelerator.device.type == "cpu" and torch.get_num_threads() == 1 < cores:
        accelerator.print(
            f"Training on one core of {cores} per process; `accelerate launch --num_cpu_threads_per_process {cores}` "
            "uses all."
        )


def _teachers(config: TrainingConfig, recipe: Recipe, dataset_fingerprint: str) -> dict[str, Path]:
    """The folders of the student's teacher, and of the guide if there is one; none for a recipe without a teacher.

    All train on the same slices, so the teacher's patients, groups and licence are the student's too.
    """
    given = {
        name: model for name, model in (("teacher", config.teacher), ("guide", config.guide)) if model is not None
    }
    if recipe.taught_by is None:
        for name in given:
            raise InputError(f"recipe {config.recipe} of {config.family} has no teacher; leave {name} out.")
        return {}
    if config.teacher is None:
        raise InputError(
            f"recipe {config.recipe} of {config.family} needs a teacher: train recipe {recipe.taught_by} and pass its "
            "run as teacher."
        )
    folders = {}
    for name, model in given.items():
        folders[name] = find_pipeline(model, argument=name)
        training = read_training(folders[name])
        if (training.get("family"), training.get("recipe")) != (config.family, recipe.taught_by):
            raise InputError(f"{name} {model} has no record of a training of {config.family}, {recipe.taught_by}.")
        if training.get("dataset_fingerprint") != dataset_fingerprint:
            raise InputError(f"{name} {model} was trained on other slices; use the same dataset and groups for both.")
    return folders
