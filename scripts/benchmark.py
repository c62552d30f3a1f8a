"""python scripts/benchmark.py --acdc ACDC/database"""

python scripts/benchmark.py --acdc ACDC/database
python scripts/benchmark.py --acdc ACDC/database --only evaluation
"""

import dataclasses
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import hcm_hf
from hcm_hf.cli import run
from hcm_hf.utils.process import count_cores


SCRIPTS = Path(__file__).parent
PARTS = ("preparation", "training", "sampling", "evaluation", "startup")


def main(
    acdc: Path | None = None,
    only: tuple[Literal["preparation", "training", "sampling", "evaluation", "startup"], ...] = PARTS,
    rounds: int = 3,
    num_steps: int = 9,
    num_proc: int = count_cores(),
) -> None:
    """Measure preparation, training steps, sampling, evaluation and start-up.

    Args:
        acdc: an ACDC folder (no .zip); by default a synthetic cohort of 100 patients.
        only: what to measure.
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
        if "preparation" in only:
            compare("prepare_dataset", rounds, lambda: prepare_plainly(acdc), lambda: prepare(acdc, num_proc))
        if "training" in only:
            training_steps(folder / "dataset", folder, rounds, num_steps)
        if "sampling" in only:
            sampling(folder / "dataset")
        if "evaluation" in only:
            similarity(folder / "dataset", rounds)
            reports(folder / "dataset", folder)
    for name, command in [
        ("import hcm_hf", ["-c", "import hcm_hf"]),
        ("train.py --help", [str(SCRIPTS / "train.py"), "--help"]),
    ]:
        if "startup" in only:
            whole, bare = (
                statistics.median(seconds(lambda arguments=arguments: start_python(arguments)) for _ in range(rounds))
                for arguments in (command, ["-c", "pass"])
            )
            print(
                f"{name}: {whole:.2f} s, {whole / bare:.1f} times an empty Python ({bare:.2f} s), medians of {rounds}"
            )


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


def training_steps(dataset: Path, runs: Path, rounds: int, num_steps: int) -> None:
    """A training step of each model, logging and all, against the peer's own loop on the same networks and batch.

    Ours is timed from the start of a step to the start of the next, so that epoch ends (validation, checkpoints) do
    not count; the peer's likewise, reading of images included on both sides.
    """
    from hcm_hf.data.slices import Slices

    split = hcm_hf.load_dataset(dataset)["train"]
    rows = [index for index, group in enumerate(split["group"]) if split.features["group"].int2str(group) == "HCM"]
    split, slices = split.select(rows), Slices(split, ("HCM",))
    resolution = slices.images.shape[-1]
    print("\nfamily: parameters, seconds per step here, images per second; the peer's seconds, how much faster we are")
    for name, key in models():
        recipe = hcm_hf.FAMILIES[name].recipes[key]
        peer = {("vae", "paper"): bare_loop, ("ddpm", "paper"): diffusers_example}.get((name, key), dcgan_example)
        peer = peer if key == "paper" else bare_loop
        times = []
        for index in range(rounds):
            objective = recipe.build(resolution)
            theirs = step_time(peer(objective, split, slices, recipe, num_steps))
            times.append(
                (theirs, our_step_time(name, key, dataset, runs / f"{name}-{key}-{index}", len(slices), num_steps))
            )
        theirs, ours = (statistics.median(column) for column in zip(*times, strict=True))
        size = sum(parameter.numel() for parameter in objective.parameters())
        print(
            f"{name}, {key}: {size / 1e6:.1f} M, {ours:.3f} s, {recipe.train_batch_size / ours:.1f} images/s; "
            f"{peer.__name__} {theirs:.3f} s, {theirs / ours:.2f} times (each of {rounds}: "
            f"{', '.join(f'{before / after:.2f}' for before, after in times)})",
            flush=True,
        )


def models() -> list[tuple[str, str]]:
    """Families with their recipes, without those that need a teacher."""
    families = hcm_hf.FAMILIES.items()
    return [(name, key) for name, family in families for key, recipe in family.recipes.items() if not recipe.taught_by]


def our_step_time(name: str, key: str, dataset: Path, output_dir: Path, num_slices: int, num_steps: int) -> float:
    """Median seconds of a step of `hcm_hf.train`."""
    family = hcm_hf.FAMILIES[name]
    recipe = family.recipes[key]
    starts: list[float] = []

    class Timed(recipe.objective):
        def losses(self, batch):
            starts.append(time.perf_counter())
            yield from super().losses(batch)

    timed = dataclasses.replace(recipe, objective=Timed)
    hcm_hf.FAMILIES[name] = dataclasses.replace(family, recipes=family.recipes | {key: timed})
    epoch_steps = -(-num_slices // recipe.train_batch_size)
    try:
        hcm_hf.train(
            hcm_hf.TrainingConfig(
                family=name,
                recipe=key,
                dataset=str(dataset),
                output_dir=str(output_dir),
                groups=("HCM",),
                num_epochs=-(-num_steps // epoch_steps),
                checkpointing_epochs=1000,
                sample_epochs=1000,
            )
        )
    finally:
        hcm_hf.FAMILIES[name] = family
    return step_time(starts)


def step_time(starts: Iterable[float]) -> float:
    """Median seconds between the starts of steps, without the first two."""
    starts = list(starts)
    return statistics.median(after - before for before, after in zip(starts[2:], starts[3:], strict=False))


def bare_loop(objective, split, slices, recipe, num_steps: int) -> Iterator[float]:
    """Our own losses in the barest of loops; yields the time at the start of each step."""
    import torch

    optimizers = {
        name: torch.optim.Adam(network.parameters(), recipe.learning_rate, recipe.adam_betas)
        for name, network in objective.named_children()
    }
    for _ in range(num_steps):
        yield time.perf_counter()
        for name, loss in objective.losses(slices.batch(torch.randint(len(slices), (recipe.train_batch_size,)))):
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()


def dcgan_example(objective, split, slices, recipe, num_steps: int) -> Iterator[float]:
    """The plain PyTorch DCGAN loop: no gradient penalty, no class or code losses, images decoded as they come."""
    import torch
    from torch.nn import functional as F

    generator, discriminator = objective.generator, objective.discriminator
    optimizers = [
        torch.optim.Adam(network.parameters(), recipe.learning_rate, recipe.adam_betas)
        for network in (discriminator, generator)
    ]

    def loss(images: torch.Tensor, target: float) -> torch.Tensor:
        output = discriminator(images)
        logits = output if isinstance(output, torch.Tensor) else output[0]
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    for images, labels in decoded(split, recipe.train_batch_size, num_steps):
        yield time.perf_counter()
        discriminator.zero_grad()
        loss(images, 1.0).backward()
        generated = generator(generator.sample_latents(len(images)), labels)
        loss(generated.detach(), 0.0).backward()
        optimizers[0].step()
        generator.zero_grad()
        loss(generated, 1.0).backward()
        optimizers[1].step()


def diffusers_example(objective, split, slices, recipe, num_steps: int) -> Iterator[float]:
    """The loop of diffusers' unconditional training example with its settings.

    AdamW, a cosine schedule with warm-up, its EMA, clipped gradients, images decoded as they come.
    """
    import torch
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel
    from torch.nn import functional as F

    model, scheduler = objective.unet, objective.scheduler
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    average = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    learning_rates = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=1035)
    for images, _ in decoded(split, recipe.train_batch_size, num_steps):
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


def decoded(split, batch_size: int, num_steps: int) -> Iterator[tuple]:
    """Shuffled batches of images (B, 1, H, W) in [-1, 1] and groups (B,); a `DataLoader` decodes each image anew."""
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    def transform(rows: dict) -> dict:
        images = [torch.from_numpy(np.array(image))[None].float() / 127.5 - 1 for image in rows["image"]]
        return {"image": images, "group": rows["group"]}

    loader = DataLoader(
        split.select_columns(["image", "group"]).with_transform(transform), batch_size, shuffle=True, drop_last=True
    )
    done = 0
    while done < num_steps:
        for batch in itertools.islice(loader, num_steps - done):
            done += 1
            yield batch["image"], batch["group"]


def sampling(dataset: Path, num_images: int = 100, batch_size: int = 50) -> None:
    """Time per image of each model, and of each sampler and number of calls of the DDPM; the weights do not matter.

    The tuned DDPM at the numbers of calls that it and its students take, in full precision and in bfloat16, with the
    DCGAN measured anew beside each; peak memory is the process's own, with everything that it has done before.
    """
    import torch

    from hcm_hf.schedulers import SAMPLERS

    resolution = hcm_hf.load_dataset(dataset)["train"][0]["image"].width
    pipelines = {}
    for name, key in models():
        recipe = hcm_hf.FAMILIES[name].recipes[key]
        pipelines[name, key] = recipe.build(resolution).pipeline()
        pipelines[name, key].set_progress_bar_config(disable=True)

    def milliseconds(pipeline, **arguments) -> float:
        def sample() -> None:
            for _ in range(num_images // batch_size):
                pipeline(batch_size=batch_size, output_type="np", **arguments)

        calls = arguments.get("num_inference_steps", 1)
        if calls < 10:
            sample()  # the first one allocates
        return statistics.median(seconds(sample) for _ in range(3 if calls < 10 else 1)) * 1000 / num_images

    print(f"\nmilliseconds per image, batches of {batch_size}, {torch.get_num_threads()} threads")
    for (name, _), pipeline in pipelines.items():
        if not pipeline.denoises:
            print(f"{name}: {milliseconds(pipeline):.2f} ms", flush=True)
    for scheduler in SAMPLERS:
        pipeline, sampling = hcm_hf.Sampling(scheduler=scheduler).applied_to(pipelines["ddpm", "paper"])
        steps = sampling.num_inference_steps
        timed = min(steps, 2)  # a step costs the same wherever it stands
        pipeline(batch_size=2, num_inference_steps=1)
        started = time.perf_counter()
        pipeline(batch_size, num_inference_steps=timed)
        taken = (time.perf_counter() - started) * 1000 / batch_size * steps / timed
        print(f"ddpm, paper, {scheduler}, {steps} calls: {taken:.0f} ms (from {timed} calls)", flush=True)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast(pipeline.device.type, dtype, enabled=dtype != torch.float32):
            for calls in (1, 2, 4, 10, 20, 50):
                for sampler in ("ddpm", "sde-dpmsolver++") if calls < 10 else ("sde-dpmsolver++",):
                    tuned, _ = hcm_hf.Sampling(scheduler=sampler).applied_to(pipelines["ddpm", "tuned"])
                    beside = milliseconds(pipelines["dcgan", "paper"])
                    taken = milliseconds(tuned, num_inference_steps=calls)
                    print(
                        f"ddpm, tuned, {sampler}, {calls} calls, {dtype}: {taken:.2f} ms, {taken / beside:.1f} times "
                        f"the DCGAN ({beside:.2f} ms)",
                        flush=True,
                    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB", flush=True)


def similarity(dataset: Path, rounds: int, num_generated: int = 1000, num_sampled: int = 200) -> None:
    """SSIM of all pairs of generated images and HCM slices, against one pair at a time; the peers on a sample."""
    import numpy as np
    import torch
    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import structural_similarity_index_measure

    from hcm_hf.evaluation.images import read_split
    from hcm_hf.metrics.pixel import ssim_matrix

    splits = hcm_hf.load_dataset(dataset)
    real = np.concatenate([read_split(splits, split, ["HCM"]).images for split in splits])
    generated = noisy(real, num_generated)
    pairs = len(generated) * len(real)
    first, second = generated[:num_sampled], real[:num_sampled]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    tensors = [torch.from_numpy(images)[:, None] for images in (first, second)]
    ways = {
        "here": (lambda: ssim_matrix(generated, real), pairs),
        "scikit-image": (
            lambda: [structural_similarity(x, y, **options) for x, y in zip(first, second, strict=True)],
            num_sampled,
        ),
        "torchmetrics": (lambda: structural_similarity_index_measure(*tensors, data_range=1.0), num_sampled),
    }
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (function, count) in ways.items():
            times[name].append(seconds(function) / count * pairs)
    medians = {name: statistics.median(each) for name, each in times.items()}
    print(
        f"\nSSIM of {len(generated)} x {len(real)} images of {real.shape[2]} px, {torch.get_num_threads()} threads: "
        f"{medians['here']:.2f} s; scikit-image one by one {medians['scikit-image']:.0f} s, "
        f"{medians['scikit-image'] / medians['here']:.0f} times that; torchmetrics in a batch of pairs "
        f"{medians['torchmetrics']:.0f} s, {medians['torchmetrics'] / medians['here']:.0f} times "
        f"(each from {num_sampled} pairs, medians of {rounds})",
        flush=True,
    )


def reports(dataset: Path, folder: Path) -> None:
    """Time and peak memory of a whole report, and the encoder's training."""
    from PIL import Image

    from hcm_hf.evaluation.images import read_split

    encoder = ["--dataset", dataset, "--output_dir", folder / "encoder"]
    elapsed, _ = child([SCRIPTS / "train_encoder.py", *encoder])
    print(f"train_encoder.py: {elapsed:.0f} s", flush=True)
    real = read_split(hcm_hf.load_dataset(dataset), "train", ["HCM"]).images
    for count in (1000, 10_000):
        images = folder / f"images-{count}"
        images.mkdir()
        for index, image in enumerate(noisy(real, count)):
            Image.fromarray((image * 255).round().astype("uint8")).save(images / f"{index:06d}.png")
        options = ["--dataset", dataset, "--encoder", folder / "encoder", "--output_dir", folder / f"report-{count}"]
        elapsed, peak = child([SCRIPTS / "score.py", "--images", images, *options, "--paper_compat"])
        print(f"report on {count} images: {elapsed:.0f} s, peak memory {peak:.2f} GiB", flush=True)


def noisy(images, count: int):
    """Some images over and over, with noise, as float32 in [0, 1]."""
    import numpy as np

    generator = np.random.default_rng(0)
    chosen = images[generator.integers(len(images), size=count)]
    return (chosen + 0.05 * generator.standard_normal(chosen.shape, np.float32)).clip(0, 1)


def child(arguments: list) -> tuple[float, float]:
    """Run this Python on `arguments`; wall time in seconds and peak memory in GiB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return time.perf_counter() - start, usage.ru_maxrss * unit / 2**30


if __name__ == "__main__":
    main("benchmark")
