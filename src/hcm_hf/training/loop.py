"""The one training loop: any family's objective, on any device that accelerate knows.

Progress is one integer, `step`. The random numbers of step n and the data order are functions of (seed, n), which
processes share, so running the same command again resumes, and a resumed run equals an uninterrupted one.
"""

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

from hcm_hf.data.acdc import check_groups
from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.slices import Slices
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model, read_training
from hcm_hf.training.checkpoint import AveragedWeights, Progress, TrainingState
from hcm_hf.training.config import RATES, Recipe, TrainingConfig
from hcm_hf.training.recipes import find_family
from hcm_hf.training.run import Run, check_finite, resolved_config
from hcm_hf.utils.devices import make_accelerator, random_state_kept
from hcm_hf.utils.errors import InputError, Interrupted
from hcm_hf.utils.process import count_cores, stop_signals


@random_state_kept()
def train(config: TrainingConfig) -> Path:
    """Train a family and keep its best pipeline; resumes what `config.output_dir` holds.

    The folder gets `best/` (lowest validation loss) and `last/` (with the state to resume from), both pipelines that
    `HCMPipeline.from_pretrained` loads, `training_config.json` (which says `finished` when it is), `metrics.jsonl`,
    `losses.png` and `samples/`. The caller's random numbers go on as if nothing had been drawn.

    Returns:
        The run's folder.

    Raises:
        InputError: on bad arguments, data or disks, before anything is written or with everything as it was.
        Diverged: if a loss is no number any more; the last checkpoint stays.
        Interrupted: on SIGINT, SIGTERM, SIGHUP or SIGUSR1, after the state has been saved.
    """
    recipe = _override(find_family(config.family, config.recipe)[1], config)
    groups = tuple(recipe.groups)
    check_groups(groups)
    accelerator = _accelerator(config)
    _warn_of_idle_cores(accelerator)
    output_dir = Path(config.output_dir or f"runs/{config.family}")

    with accelerator.main_process_first() if config.dataset is None else nullcontext():  # one writes the synthetic one
        dataset = load_dataset(config.dataset, config.resolution)
    train_slices, validation_slices = (Slices(dataset[split], groups) for split in ("train", "validation"))
    if len(validation_slices) < 2:
        raise InputError(
            f"The validation split holds {len(validation_slices)} slice of {groups}; prepare more patients."
        )
    resolution = train_slices.images.shape[-1]
    dataset_license = dataset["train"].info.license
    written = resolved_config(config, recipe, train_slices, validation_slices, dataset_license, accelerator)
    taught = _teacher(config, recipe, written, accelerator)

    # Build the networks, their optimizers and the state that ties them together.
    torch.manual_seed(config.seed)
    try:
        objective = recipe.build(resolution, **recipe.objective, **taught).to(accelerator.device)
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
    num_steps = recipe.num_epochs * epoch_steps

    def finished() -> bool:
        return progress.step >= num_steps or progress.step - progress.best_step >= recipe.patience * epoch_steps

    accelerator.print(
        f"{config.family}, recipe {config.recipe}: {len(slices)} slices, {accelerator.num_processes} process(es) with "
        f"{recipe.train_batch_size} slices a step each on {accelerator.device}, {num_steps} steps."
    )
    started = time.monotonic() - progress.seconds
    bar = tqdm(
        total=num_steps,
        initial=progress.step,
        desc=config.family,
        unit="step",
        disable=not accelerator.is_local_main_process,
    )
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
        record = dict(zip(record, values, strict=True))
        check_finite(record, progress.step)
        bar.update()
        bar.set_postfix({name: f"{value:.3f}" for name, value in record.items()}, refresh=False)
        run.log(record, -(-progress.step // epoch_steps))

        # Validate at the end of an epoch, keep the best, save at intervals and when asked to stop.
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
    """Indices of one process's part of batch `step` in an endless stream of shuffled passes over `length` items.

    Args:
        length: number of items.
        batch_size: of all processes together.
        step: from 0.
        seed: of the shuffling.
        process_index: whose part; processes take every `num_processes`-th index.
        num_processes: number of processes.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)[process_index::num_processes]
    return np.array(
        [
            _permutation(length, seed, int(epoch))[offset]
            for epoch, offset in zip(*divmod(positions, length), strict=True)
        ]
    )


def step_seed(seed: int, step: int) -> int:
    """The seed of the random numbers of one step, the same in all processes; see `SliceBatch.draw`."""
    # The 0 keeps this stream apart from that of the data order, which is seeded with (seed, epoch).
    return int(np.random.SeedSequence([seed, 0, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def _next(losses: Iterator[tuple[str, torch.Tensor]], accelerator: Accelerator) -> tuple[str, torch.Tensor] | None:
    with accelerator.autocast():
        return next(losses, None)


def _average_gradients(network: torch.nn.Module, accelerator: Accelerator) -> None:
    """Mean over processes; done here and not by a wrapper, so that an objective may call its networks as it likes."""
    if accelerator.num_processes > 1:
        for parameter in network.parameters():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")


def _agreed(signal_number: int, accelerator: Accelerator) -> int:
    """The highest signal that any process received: all of them stop at the same step."""
    if accelerator.num_processes == 1:
        return signal_number
    return int(accelerator.gather(torch.tensor([signal_number], device=accelerator.device)).max())


def _launcher_ended(launcher: int) -> int:
    """SIGTERM if `accelerate launch`, which passes no signal on, has ended before this process; else 0."""
    return signal.SIGTERM if "ACCELERATE_MIXED_PRECISION" in os.environ and os.getppid() != launcher else 0


@contextmanager
def _stop_requests() -> Iterator[dict[str, int]]:
    """Turn a signal that asks to stop into a note that the loop reads; a second one acts at once."""
    stop = {"signal": 0}

    def note(signal_number: int, frame: FrameType | None) -> None:
        stop["signal"] = signal_number
        signal.signal(signal_number, before[signal_number])

    with stop_signals(note) as before:
        yield stop


def _accelerator(config: TrainingConfig) -> Accelerator:
    available = [str(tracker) for tracker in get_available_trackers()]
    for tracker in config.report_to:
        if tracker not in available:
            raise InputError(f"--report_to {tracker} is not installed; run pip install {tracker}.")
    try:
        return make_accelerator(
            mixed_precision=config.mixed_precision,
            log_with=list(config.report_to) or None,
            project_dir=Path(config.output_dir or f"runs/{config.family}") / "logs",
        )
    except ValueError as error:
        if config.mixed_precision is None:
            raise
        raise InputError(f"--mixed_precision {config.mixed_precision} does not work here: {error}") from error


def _warn_of_idle_cores(accelerator: Accelerator) -> None:
    cores = count_cores() // accelerator.num_processes
    if accelerator.device.type == "cpu" and torch.get_num_threads() == 1 < cores:
        accelerator.print(
            f"Training on one core of {cores} per process; `accelerate launch --num_cpu_threads_per_process {cores}` "
            "uses all."
        )


def _teacher(config: TrainingConfig, recipe: Recipe, written: dict, accelerator: Accelerator) -> dict:
    """The teacher's pipeline as an argument of a student's builder; who it is is noted in `written`.

    A student sees the slices that its teacher has seen: so patients, groups and licence of both are the same.
    """
    if config.teacher is None and not recipe.taught_by:
        return {}
    if config.teacher is None:
        raise InputError(
            f"--recipe {config.recipe} of {config.family} needs a teacher: train --recipe {recipe.taught_by[0]} and "
            "name its run with --teacher."
        )
    if not recipe.taught_by:
        raise InputError(f"--recipe {config.recipe} of {config.family} has no teacher; leave --teacher out.")
    folder = find_pipeline(config.teacher, argument="--teacher")
    training = read_training(folder)
    if (training.get("family"), training.get("recipe")) not in [(config.family, name) for name in recipe.taught_by]:
        known = " or ".join(recipe.taught_by)
        raise InputError(
            f"--teacher {config.teacher} is no {config.family} of recipe {known} with its training's notes."
        )
    if training.get("dataset_fingerprint") != written["dataset_fingerprint"]:
        raise InputError(
            f"--teacher {config.teacher} was trained on other slices than these; give the same --dataset and --groups."
        )
    pipeline = HCMPipeline.from_pretrained(folder, device=accelerator.device)
    written["teacher_hash"] = hash_model(folder)
    return {"teacher": pipeline}


def _override(recipe: Recipe, config: TrainingConfig) -> Recipe:
    values = recipe.settings() | {
        name: value for name, value in vars(config).items() if name in recipe.settings() and value is not None
    }
    if config.num_inference_steps is not None:
        if "num_inference_steps" not in recipe.objective:
            raise InputError(f"--num_inference_steps is a distilled student's; leave it out for {config.recipe}.")
        if config.num_inference_steps < 1:
            raise InputError(f"--num_inference_steps is {config.num_inference_steps}; it must be at least 1.")
        values["objective"] = recipe.objective | {"num_inference_steps": config.num_inference_steps}
    for name in ("num_epochs", "train_batch_size", "patience"):
        if values[name] < 1:
            raise InputError(f"--{name} is {values[name]}; it must be at least 1.")
    if not values["learning_rate"] > 0:
        raise InputError(f"--learning_rate is {values['learning_rate']}; it must be above 0.")
    if values["lr_scheduler"] not in RATES:
        raise InputError(f"Unknown --lr_scheduler '{values['lr_scheduler']}'; choose among {', '.join(RATES)}.")
    if not 0 <= values["ema_decay"] < 1:
        raise InputError(f"--ema_decay is {values['ema_decay']}; it must lie in [0, 1).")
    if config.seed < 0:
        raise InputError(f"--seed is {config.seed}; it must be 0 or more.")
    for name in ("checkpointing_epochs", "sample_epochs"):
        if vars(config)[name] < 1:
            raise InputError(f"--{name} is {vars(config)[name]}; it must be at least 1.")
    return replace(recipe, **values)
