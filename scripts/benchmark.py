"""Measure what this package costs against the plain way; prints ratios of medians over alternating runs.

python scripts/benchmark.py --acdc ACDC/database
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import hcm_hf
from hcm_hf.cli import run


SCRIPTS = Path(__file__).parent


def main(acdc: Path | None = None, rounds: int = 5, num_steps: int = 20, num_proc: int = os.cpu_count() or 1) -> None:
    """Measure preparation, a training step and start-up.

    Args:
        acdc: an ACDC folder (no .zip); by default a synthetic cohort of 100 patients.
        rounds: runs of each side, in turn.
        num_steps: training steps per run.
        num_proc: processes that prepare the dataset.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if acdc is None:
            acdc = folder / "cohort"
            hcm_hf.write_cohort(acdc, num_proc=num_proc)
        hcm_hf.prepare_dataset(acdc, folder / "dataset", num_proc=num_proc)
        compare("prepare_dataset", rounds, lambda: prepare_plainly(acdc), lambda: prepare(acdc, num_proc))
        step_overhead(folder, rounds, num_steps)
    for name, command in [
        ("import hcm_hf", ["-c", "import hcm_hf"]),
        ("train.py --help", [str(SCRIPTS / "train.py"), "--help"]),
    ]:
        whole, bare = (
            statistics.median(seconds(lambda arguments=arguments: start_python(arguments)) for _ in range(rounds))
            for arguments in (command, ["-c", "pass"])
        )
        print(f"{name}: {whole:.2f} s, {whole / bare:.1f} times an empty Python ({bare:.2f} s), medians of {rounds}")


def compare(name: str, rounds: int, plain: Callable[[], None], ours: Callable[[], None]) -> None:
    """Time both in turn and print their medians and ratio."""
    times = [(seconds(plain), seconds(ours)) for _ in range(rounds)]
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{name}: {after:.2f} s, plainly {before:.2f} s, {before / after:.2f} times as fast, medians of {rounds}")


def seconds(function: Callable[[], None]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def start_python(arguments: list[str]) -> None:
    """Run this Python on `arguments`."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def prepare(acdc: Path, num_proc: int) -> None:
    """Our way, with everything that it checks and reports, saved to disk."""
    with tempfile.TemporaryDirectory() as folder:
        hcm_hf.prepare_dataset(acdc, Path(folder) / "dataset", num_proc=num_proc)


def prepare_plainly(acdc: Path) -> None:
    """What a script would do in one process: nibabel, scikit-image resize, crop, percentiles; nothing is saved."""
    import nibabel
    import numpy as np
    from skimage.transform import resize

    for path in sorted(acdc.rglob("*_frame??.nii.gz")):
        file, mask = nibabel.load(path), nibabel.load(str(path).replace(".nii.gz", "_gt.nii.gz"))
        volume, labels = file.get_fdata(dtype=np.float32), np.asarray(mask.dataobj)
        low, high = np.percentile(volume, (0.5, 99.5))
        spacing = file.header.get_zooms()
        shape = tuple(round(n * size / 2) for n, size in zip(volume.shape, spacing, strict=True))[:2]
        x, y = (np.flatnonzero(labels.any(axis=axes)) for axes in ((1, 2), (0, 2)))
        for index in range(volume.shape[2]):
            image = np.pad(resize(volume[:, :, index], shape, order=1, anti_aliasing=True), 32)
            label = np.pad(resize(labels[:, :, index], shape, order=0, anti_aliasing=False), 32)
            left, top = (round((a[0] + a[-1]) / 2 * s / 2) for a, s in zip((x, y), spacing, strict=False))
            box = slice(left, left + 64), slice(top, top + 64)
            (255 * np.clip((image[box] - low) / (high - low), 0, 1)).astype(np.uint8), label[box]


def step_overhead(folder: Path, rounds: int, num_steps: int) -> None:
    """A step of the training loop, logging and all, against the same step written bare; same networks and data."""
    import torch

    from hcm_hf.data.slices import Slices

    family = hcm_hf.FAMILIES["dcgan"]
    recipe = family.recipes["paper"]
    slices = Slices(hcm_hf.load_dataset(folder / "dataset")["train"], family.groups)
    starts: list[float] = []

    def timed_build(*arguments, **options):
        objective = family.build(*arguments, **options)
        losses = objective.losses

        def timed(batch):
            starts.append(time.perf_counter())
            yield from losses(batch)

        objective.losses = timed
        return objective

    def step_time() -> float:
        """Median time between the starts of steps, so that epoch ends (validation, checkpoints) do not count."""
        differences = [after - before for before, after in zip(starts, starts[1:], strict=False)]
        starts.clear()
        return statistics.median(differences[2:])

    def bare() -> float:
        objective = timed_build(slices.images.shape[-1], **recipe.objective)
        optimizers = {
            name: torch.optim.Adam(network.parameters(), recipe.learning_rate, recipe.adam_betas)
            for name, network in objective.named_children()
        }
        for _ in range(num_steps):
            for name, loss in objective.losses(slices.batch(torch.randint(len(slices), (recipe.train_batch_size,)))):
                optimizers[name].zero_grad()
                loss.backward()
                optimizers[name].step()
        return step_time()

    def loop(index: int) -> float:
        epoch_steps = -(-len(slices) // recipe.train_batch_size)
        hcm_hf.train(
            hcm_hf.TrainingConfig(
                dataset=str(folder / "dataset"),
                output_dir=str(folder / f"run-{index}"),
                num_epochs=-(-num_steps // epoch_steps),
                checkpointing_epochs=1000,
                sample_epochs=1000,
            )
        )
        return step_time()

    hcm_hf.FAMILIES["dcgan"] = dataclasses.replace(family, build=timed_build)
    times = [(bare(), loop(index)) for index in range(rounds)]
    ratios = [after / before - 1 for before, after in times]
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"training step (DCGAN, 64 px, batch {recipe.train_batch_size}): {1000 * after:.0f} ms, "
        f"bare {1000 * before:.0f} ms, overhead {100 * statistics.median(ratios):+.1f} % "
        f"(each of {rounds}: {', '.join(f'{100 * ratio:+.1f}' for ratio in ratios)})"
    )


if __name__ == "__main__":
    run(main)
