"""What this package costs against plain code: ratios of medians over alternating runs."""

import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import datasets
import nibabel
import numpy as np
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hcm_hf.data.dataset import load_dataset, prepare_dataset
from hcm_hf.data.phantom import write_cohort
from hcm_hf.data.slices import SliceBatch, Slices
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.evaluation.images import read_split
from hcm_hf.metrics.pixel import ssim_matrix
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.schedulers import SAMPLERS
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipe import Recipe
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.names import TARGET_GROUP
from hcm_hf.utils.process import count_cores, peak_memory


Part = Literal["preparation", "training", "sampling", "evaluation", "startup"]
Decoded = tuple[torch.Tensor, torch.Tensor]  # a batch of images and groups
COMMAND = "-m", "hcm_hf"  # arguments of Python for a command of this package


def benchmark(
    acdc: str | Path | None = None,
    only: tuple[Part, ...] = ("preparation", "training", "sampling", "evaluation", "startup"),
    rounds: int = 3,
    num_steps: int = 9,
    num_proc: int | None = None,
) -> None:
    """Measure preparation, training steps, sampling, evaluation and start-up against plain code.

    Args:
        acdc: an ACDC folder (no .zip); by default a synthetic cohort of 100 patients.
        only: what to measure.
        rounds: runs of each side, in turn.
        num_steps: training steps per run.
        num_proc: number of processes that prepare the dataset; by default one per core.
    """
    num_proc = num_proc or count_cores()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cohort = Path(acdc or folder / "cohort")
        if acdc is None:
            write_cohort(cohort, num_proc=num_proc)
        prepare_dataset(cohort, folder / "dataset", num_proc=num_proc)
        if "preparation" in only:
            copies = (folder / f"copy-{index}" for index in itertools.count())
            here = partial(prepare_dataset, num_proc=num_proc)
            plain, ours = in_turn(rounds, partial(prepare_plainly, cohort), lambda: here(cohort, next(copies)))
            print(f"prepare_dataset: {ours:.2f} s, plainly {plain:.2f} s, {plain / ours:.2f} times as fast")
        if "training" in only:
            training_steps(folder / "dataset", folder, rounds, num_steps)
        if "sampling" in only:
            sampling(folder / "dataset")
        if "evaluation" in only:
            similarity(folder / "dataset", rounds)
            reports(folder / "dataset", folder)
    if "startup" in only:
        commands = {"import hcm_hf": ("-c", "import hcm_hf"), "train --help": (*COMMAND, "train", "--help")}
        for name, command in commands.items():
            bare, whole = in_turn(rounds, partial(run_python, "-c", "pass"), partial(run_python, *command))
            print(f"{name}: {whole:.2f} s, {whole / bare:.1f} times an empty Python ({bare:.2f} s)")


def in_turn(rounds: int, *functions: Callable[[], object]) -> list[float]:
    """Median seconds of each function, called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def run_python(*arguments: object) -> tuple[float, float]:
    """Run this Python on `arguments`; wall time in seconds and peak memory in GiB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return time.perf_counter() - start, usage.ru_maxrss * unit / 2**30


def prepare_plainly(acdc: Path) -> None:
    """What a script would do in one process: nibabel, scikit-image resize, crop, percentiles; nothing is saved."""
    from skimage.transform import resize

    for path in sorted(acdc.rglob("*_frame??.nii.gz")):
        file, mask = (nibabel.Nifti1Image.from_filename(name) for name in (str(path), f"{str(path)[:-7]}_gt.nii.gz"))
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


def training_steps(dataset: Path, runs: Path, rounds: int, num_steps: int) -> None:
    """A training step of each model, logging and all, against a plain loop on the same networks and batch size.

    From the start of a step to that of the next: reading images counts, validation and checkpoints do not.
    """
    splits = load_dataset(dataset)
    split, vocabulary = splits["train"], Vocabulary.of(splits)
    index = vocabulary.groups.index(vocabulary.target)
    rows = [row for row, group in enumerate(split["group"]) if group == index]
    split, slices = split.select(rows), Slices(split, (TARGET_GROUP,))
    print("\nfamily: parameters, seconds per step here, images per second; the plain loop's seconds, and the ratio")
    for name, key in models():
        recipe = FAMILIES[name].recipes[key]
        plain: Callable[..., Iterator[float]] = bare_loop
        if key == "paper" and name != "vae":
            plain = diffusers_example if name == "ddpm" else dcgan_example
        times = []
        for index in range(rounds):
            objective, size = recipe.build(slices.images.shape[-1], vocabulary), recipe.train_batch_size
            ready = (slices.batch(torch.randint(len(slices), (size,))) for _ in range(num_steps))
            batches = ready if plain is bare_loop else decoded(split, size, num_steps)
            theirs = step_time(plain(objective, batches, recipe))
            run = runs / f"{name}-{key}-{index}"
            times.append((theirs, our_step_time(name, key, dataset, run, len(slices), num_steps)))
        theirs, ours = (statistics.median(column) for column in zip(*times, strict=True))
        count = sum(parameter.numel() for parameter in objective.parameters())
        print(
            f"{name}, {key}: {count / 1e6:.1f} M, {ours:.3f} s, {size / ours:.1f} images/s; "
            f"{plain.__name__} {theirs:.3f} s, {theirs / ours:.2f} times (each of {rounds}: "
            f"{', '.join(f'{before / after:.2f}' for before, after in times)})",
            flush=True,
        )


def models() -> list[tuple[str, str]]:
    """Families with their recipes, without those that need a teacher."""
    families = FAMILIES.items()
    return [(name, key) for name, family in families for key, recipe in family.recipes.items() if not recipe.taught_by]


def our_step_time(name: str, key: str, dataset: Path, output_dir: Path, num_slices: int, num_steps: int) -> float:
    """Median seconds of a step of `train`."""
    recipe = FAMILIES[name].recipes[key]
    starts: list[float] = []
    losses = recipe.objective.losses

    def timed(objective: Any, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        starts.append(time.perf_counter())
        yield from losses(objective, batch)

    config = TrainingConfig(
        family=name,
        recipe=key,
        dataset=str(dataset),
        output_dir=str(output_dir),
        groups=(TARGET_GROUP,),
        num_epochs=math.ceil(num_steps / math.ceil(num_slices / recipe.train_batch_size)),
        checkpointing_epochs=1000,
        sample_epochs=1000,
    )
    with patch.object(recipe.objective, "losses", timed):
        train(config)
    return step_time(starts)


def step_time(starts: Iterable[float]) -> float:
    """Median seconds between the starts of steps, without the first two."""
    return statistics.median(after - before for before, after in itertools.islice(itertools.pairwise(starts), 2, None))


def bare_loop(objective: Any, batches: Iterable[SliceBatch], recipe: Recipe) -> Iterator[float]:
    """Our own losses in the barest of loops; yields the time at the start of each step."""
    optimizers = {
        name: torch.optim.Adam(network.parameters(), recipe.learning_rate, recipe.adam_betas)
        for name, network in objective.named_children()
    }
    for batch in batches:
        yield time.perf_counter()
        for name, loss in objective.losses(batch):
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()


def dcgan_example(objective: Any, batches: Iterable[Decoded], recipe: Recipe) -> Iterator[float]:
    """The plain PyTorch DCGAN loop: no gradient penalty, no class or code losses, images decoded as they come."""
    generator, discriminator = objective.generator, objective.discriminator
    optimizers = [
        torch.optim.Adam(network.parameters(), recipe.learning_rate, recipe.adam_betas)
        for network in (discriminator, generator)
    ]

    def loss(images: torch.Tensor, target: float) -> torch.Tensor:
        output = discriminator(images)
        logits = output if isinstance(output, torch.Tensor) else output[0]
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    for images, labels in batches:
        yield time.perf_counter()
        discriminator.zero_grad()
        loss(images, 1.0).backward()
        generated = generator(generator.sample_latents(len(images)), labels)
        loss(generated.detach(), 0.0).backward()
        optimizers[0].step()
        generator.zero_grad()
        loss(generated, 1.0).backward()
        optimizers[1].step()


def diffusers_example(objective: Any, batches: Iterable[Decoded], recipe: Recipe) -> Iterator[float]:
    """The loop of diffusers' unconditional training example with its settings, images decoded as they come."""
    model, scheduler = objective.unet, objective.scheduler
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    average = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    learning_rates = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=1035)
    for images, _ in batches:
        yield time.perf_counter()
        noise = torch.randn_like(images)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(images),)).long()
        loss = F.mse_loss(model(scheduler.add_noise(images, noise, timesteps), timesteps).sample.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        learning_rates.step()
        optimizer.zero_grad()
        average.step(model.parameters())


def decoded(split: datasets.Dataset, size: int, num_steps: int) -> Iterator[Decoded]:
    """Shuffled batches of images (B, 1, H, W) in [-1, 1] and groups (B,); a `DataLoader` decodes each image anew."""

    def transform(rows: dict[str, list]) -> dict[str, list]:
        images = [torch.from_numpy(np.array(image))[None].float() / 127.5 - 1 for image in rows["image"]]
        return {"image": images, "group": rows["group"]}

    rows = split.select_columns(["image", "group"]).with_transform(transform)
    loader = DataLoader(rows, size, shuffle=True, drop_last=True)
    for batch in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), num_steps):
        yield batch["image"], batch["group"]


def sampling(dataset: Path, num_images: int = 100, batch_size: int = 50) -> None:
    """Time per image of each model; of the DDPMs by sampler and number of steps, with untrained weights.

    The tuned DDPM runs in float32 and in bfloat16, with the DCGAN beside each.
    """
    splits = load_dataset(dataset)
    resolution, vocabulary = splits["train"][0]["image"].width, Vocabulary.of(splits)
    pipelines = {}
    for name, key in models():
        recipe = FAMILIES[name].recipes[key]
        pipelines[name, key] = recipe.build(resolution, vocabulary).pipeline()
        pipelines[name, key].set_progress_bar_config(disable=True)

    def milliseconds(pipeline: HCMPipeline, **arguments: int) -> float:
        def sample() -> None:
            for _ in range(num_images // batch_size):
                pipeline(batch_size=batch_size, output_type="np", **arguments)

        quick = arguments.get("num_inference_steps", 1) < 10
        if quick:
            sample()  # the first one allocates
        return in_turn(3 if quick else 1, sample)[0] * 1000 / num_images

    print(f"\nmilliseconds per image, batches of {batch_size}, {torch.get_num_threads()} threads")
    for (name, _), pipeline in pipelines.items():
        if not pipeline.denoises:
            print(f"{name}: {milliseconds(pipeline):.2f} ms", flush=True)
    study, tuned, dcgan = pipelines["ddpm", "paper"], pipelines["ddpm", "tuned"], pipelines["dcgan", "paper"]
    for scheduler in SAMPLERS:
        bound, sampled = Sampling(scheduler=scheduler).applied_to(study)
        steps = sampled.num_inference_steps or 1
        timed = min(steps, 2)  # all steps cost the same
        bound(batch_size=2, num_inference_steps=1)
        taken = in_turn(1, partial(bound, batch_size, num_inference_steps=timed))[0] * steps / timed
        taken *= 1000 / batch_size
        print(f"ddpm, paper, {scheduler}, {steps} calls: {taken:.0f} ms (from {timed} calls)", flush=True)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast(tuned.device.type, dtype, enabled=dtype != torch.float32):
            for steps in (1, 2, 4, 10, 20, 50):
                for sampler in ("ddpm", "sde-dpmsolver++") if steps < 10 else ("sde-dpmsolver++",):
                    bound, _ = Sampling(scheduler=sampler).applied_to(tuned)
                    beside, taken = milliseconds(dcgan), milliseconds(bound, num_inference_steps=steps)
                    ratio = f"{taken / beside:.1f} times the DCGAN ({beside:.2f} ms)"
                    print(f"ddpm, tuned, {sampler}, {steps} calls, {dtype}: {taken:.2f} ms, {ratio}", flush=True)
    peak = peak_memory() / 2**30
    print(f"peak memory of the process {peak:.2f} GiB", flush=True)


def similarity(dataset: Path, rounds: int, num_generated: int = 1000, num_sampled: int = 200) -> None:
    """SSIM of all pairs of generated images and HCM slices, against scikit-image and torchmetrics on a sample."""
    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import structural_similarity_index_measure

    splits = load_dataset(dataset)
    real = np.concatenate([read_split(splits, split, [TARGET_GROUP]).images for split in splits])
    generated = noisy(real, num_generated)
    first, second = generated[:num_sampled], real[:num_sampled]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    left, right = (torch.from_numpy(images)[:, None] for images in (first, second))
    ours, one_by_one, batched = in_turn(
        rounds,
        lambda: ssim_matrix(generated, real),
        lambda: [structural_similarity(x, y, **options) for x, y in zip(first, second, strict=True)],
        lambda: structural_similarity_index_measure(left, right, data_range=1.0),
    )
    one_by_one, batched = (one * len(generated) * len(real) / num_sampled for one in (one_by_one, batched))
    print(
        f"\nSSIM of {len(generated)} x {len(real)} images of {real.shape[2]} px, {torch.get_num_threads()} threads: "
        f"{ours:.2f} s; scikit-image one by one {one_by_one:.0f} s, {one_by_one / ours:.0f} times that; torchmetrics "
        f"in a batch of pairs {batched:.0f} s, {batched / ours:.0f} times (each from {num_sampled} pairs)",
        flush=True,
    )


def reports(dataset: Path, folder: Path) -> None:
    """Time of the encoder's training; time and peak memory of reports on 1,000 and 10,000 images."""
    encoder = folder / "encoder"
    elapsed, _ = run_python(*COMMAND, "train_encoder", "--dataset", dataset, "--output_dir", encoder)
    print(f"train_encoder: {elapsed:.0f} s", flush=True)
    real = read_split(load_dataset(dataset), "train", [TARGET_GROUP]).images
    for count in (1000, 10_000):
        images = folder / f"images-{count}"
        images.mkdir()
        for index, image in enumerate(noisy(real, count)):
            Image.fromarray((image * 255).round().astype("uint8")).save(images / f"{index:06d}.png")
        options = ["--dataset", dataset, "--encoder", encoder, "--output_dir", folder / f"report-{count}"]
        elapsed, peak = run_python(*COMMAND, "score", "--images", images, *options, "--paper_compat")
        print(f"report on {count} images: {elapsed:.0f} s, peak memory {peak:.2f} GiB", flush=True)


def noisy(images: np.ndarray, count: int) -> np.ndarray:
    """Some images over and over, with noise, as float32 in [0, 1]."""
    generator = np.random.default_rng(0)
    chosen = images[generator.integers(len(images), size=count)]
    return (chosen + 0.05 * generator.standard_normal(chosen.shape, np.float32)).clip(0, 1)
