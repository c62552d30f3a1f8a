"""Quality and time of a model, of a diffusion model by sampler and number of denoising steps, in one table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hcm_hf.data.dataset import load_dataset
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.images import fingerprint, read_split
from hcm_hf.evaluation.report import REPORT_FILE, Report
from hcm_hf.evaluation.scoring import measure_speed, score
from hcm_hf.evaluation.tables import cell, markdown_table
from hcm_hf.evaluation.typed import plain
from hcm_hf.generation.images import generate_images
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.utils.devices import find_device
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import last_part, write_text
from hcm_hf.utils.hub import parse_repository
from hcm_hf.utils.names import TARGET_GROUP
from hcm_hf.version import __version__


COLUMNS = (
    *("c2st_auc", "kid_imagenet", "noise_level", "edge_kurtosis"),
    *("kid_acdc", "relative_fd_acdc", "coverage_acdc", "spectrum_distance", "brightness_outliers", "copy_rate"),
    *("thick_share_ed", "valid_topology"),
    *("mask_dice_myocardium", "mask_dice_lv", "mask_valid_topology"),
)
REAL = "**real patients**"  # the row of the level to reach
WALLS = ("mask_thick_share_{}_ed", "mask_wall_distance_{}_ed")  # of a group asked for
SCHEDULERS, STEPS = ("ddpm", "unipc"), (1, 2, 4, 10, 20, 50)
ONCE = "once"  # the row of a model that is called once
ONCE_WARNING = "The distances do not see blur: read them with spectrum_distance and the shares of thick walls."
STEPS_WARNING = (
    "The distances prefer blurred images of few steps, and do not see walls that a solver has thickened: read them "
    "with spectrum_distance and the shares of thick walls."
)


def sweep_steps(
    model: str | Path,
    output_dir: str | Path,
    dataset: str | Path | None = None,
    encoder: str | Path | None = None,
    schedulers: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    stochastic_floors: Sequence[float] | None = None,
    last_sigmas: Sequence[float] | None = None,
    num_images: int = 200,
    seeds: Sequence[int] = (0,),
    split: str = "test",
    groups: Sequence[str] = (TARGET_GROUP,),
    device: str | None = None,
) -> Path:
    """Measure quality and time of a model by seed, and of a diffusion model by sampler and number of steps.

    The folder gets a report in `SCHEDULER-STEPS/GROUP-SEED` for each setting (`once/GROUP-SEED` for models without
    sampling steps), `steps.json` and `steps.md`. Run again, it keeps what is there: schedulers, steps, groups and
    seeds can be added.

    Args:
        model: folder or repository (user/name) of a model or of its training run.
        output_dir: the folder to write to.
        dataset: folder of the prepared dataset that the model was trained on; by default the synthetic cohort.
        encoder: folder of the encoder trained on that dataset.
        schedulers: a diffusion model's samplers: ddpm, ddim, dpmsolver++, sde-dpmsolver++, unipc; by default ddpm and
            unipc.
        steps: a diffusion model's numbers of sampling steps; by default 1 2 4 10 20 50.
        stochastic_floors: noise levels below which sde-dpmsolver++ adds no noise; by default the model's own.
        last_sigmas: noise levels of the last call of sde-dpmsolver++; by default the model's own.
        num_images: number of images of each setting.
        seeds: seeds of images and evaluation; all settings of a seed start from the same noise. With several seeds
            the table has the mean, the lowest and the highest.
        split: the held-out split; choose settings on "validation".
        groups: groups of the images and of the real slices. The table shows all metrics for the first group, and for
            the others wall thickness only.
        device: where networks compute, such as cpu or cuda:1; by default the accelerator if there is one.

    Returns:
        The folder.

    Raises:
        InputError: if steps are named for a model that takes none, groups for one that has none, or as `score`.
    """
    output_dir, where = Path(output_dir), str(find_device(device))
    if not all(names is None or len(names) > 0 for names in (schedulers, steps, seeds, groups)):
        raise InputError("schedulers, steps, seeds and groups must each name one or more.")
    pipeline = HCMPipeline.from_pretrained(model)
    if not pipeline.makes_masks and len(groups) > 1:
        raise InputError(f"groups {' '.join(groups)}: this model makes no masks, whose walls to compare; name one.")
    asked = {group: {"group": group} if "group" in pipeline.conditions.axes else None for group in groups}
    fine = {"stochastic_floor": stochastic_floors, "last_sigma": last_sigmas}
    settings = _list_settings(pipeline, schedulers, steps, fine)
    for one in settings.values():
        for group in groups:  # what cannot be is found before the first image
            replace(one, conditions=asked[group]).applied_to(pipeline)
    splits = load_dataset(dataset)
    loaded = None if encoder is None else load_encoder(encoder)
    hashes = (None, None) if loaded is None else (loaded.features.hash, loaded.segmenter.hash)
    references = {
        group: fingerprint(*(read_split(splits, part, [group]) for part in ("train", split))) for group in groups
    }

    def scored(name: str, group: str, seed: int) -> Report:
        folder, sampling = output_dir / name / f"{group}-{seed}", replace(settings[name], conditions=asked[group])
        options: dict[str, Any] = {"seed": seed, "device": where}
        images = generate_images(model, folder / "images", num_images, sampling=sampling, **options)
        report = Report.load(folder) if (folder / REPORT_FILE).is_file() else None
        wanted = num_images, seed, __version__, references[group], *hashes
        if report is not None and _circumstances(report) == wanted:
            return report
        options |= {"dataset": dataset, "encoder": encoder, "split": split, "groups": [group]}
        return score(folder, images=images, **options)

    rows: dict[str, list[dict[str, Number]]] = {}
    speeds = {}
    for name in settings:
        found = {seed: {group: scored(name, group, seed) for group in groups} for seed in seeds}
        rows[name] = [_shown(reports, "generated") for reports in found.values()]
        last = found[seeds[-1]]
        first = last[groups[0]]
        if first.speed is None:
            first.speed = measure_speed(HCMPipeline.from_pretrained(model, device=where), first.generator)
            first.save(output_dir / name / f"{groups[0]}-{seeds[-1]}")
        speeds[name] = first.speed
    rows[REAL] = [_shown(last, "real")]
    columns = [column for column in rows[REAL][0] if any(column in row for row in rows[name])]
    lines = []
    for name, numbers in rows.items():
        time = ["", ""]
        if name in speeds:
            time = [str(speeds[name].network_calls), speeds[name].seconds()]
        lines.append([name, *time, *(_over_seeds([row.get(column) for row in numbers], column) for column in columns)])
    table = markdown_table(["", "calls", "seconds per 1,000 images", *columns], lines)
    brackets = "95 % interval over the reference's patients"
    if len(seeds) > 1:
        brackets = "the lowest and the highest of the seeds, around their mean; for real patients the 95 % interval"
    generator, data = first.generator, first.dataset
    assert generator.model is not None  # it made the images
    made_by, compared_with = (  # not where they are on this machine
        name if parse_repository(name) else last_part(name) for name in (generator.model, data.name)
    )
    title, warning = "Quality and time by the number of steps", STEPS_WARNING
    if ONCE in settings:
        title, warning = "Quality and time", ONCE_WARNING
    below = (
        f"{num_images} images each of {made_by} ({generator.model_hash}), seeds "
        f"{', '.join(map(str, seeds))}; dataset {compared_with} ({data.fingerprint}), split {split} with "
        f"{first.n_heldout} slices of {first.n_heldout_patients} patients; hcm_hf {first.hcm_hf_version}. "
        f"Seconds: by {' or '.join(sorted({speed.circumstances() for speed in speeds.values()}))}. "
        f"In brackets: {brackets}. {warning}"
    )
    record = {
        name: {"speed": speeds.get(name), "seeds": list(seeds)[: len(numbers)], "numbers": numbers}
        for name, numbers in rows.items()
    }
    write_text(output_dir / "steps.json", json.dumps(plain(record), indent=2, allow_nan=False) + "\n")
    write_text(output_dir / "steps.md", f"# {title}\n\n{table}\n\n{below}\n")
    return output_dir


def _list_settings(
    pipeline: HCMPipeline,
    schedulers: Sequence[str] | None,
    steps: Sequence[int] | None,
    fine: Mapping[str, Sequence[float] | None],
) -> dict[str, Sampling]:
    """How to sample, by the name of the row: the sampler with its options, and the number of steps last."""
    if not pipeline.denoises:
        if schedulers or steps or any(fine.values()):
            raise InputError(
                "schedulers and steps are for diffusion models, and so are their options; leave them out."
            )
        return {ONCE: Sampling()}
    settings = {}
    for name in schedulers or SCHEDULERS:
        for options in product(*(values or (None,) for values in fine.values())):
            chosen: dict[str, Any] = {
                key: value for key, value in zip(fine, options, strict=True) if value is not None
            }
            sampler = "-".join([name, *(f"{key}={value:g}" for key, value in chosen.items())])
            for count in steps or STEPS:
                settings[f"{sampler}-{count}"] = Sampling(scheduler=name, num_inference_steps=count, **chosen)
    return settings


def _shown(reports: Mapping[str, Report], row: str) -> dict[str, Number]:
    """What the table shows of a row of the reports, by group: of groups after the first, the walls only."""
    shown: dict[str, Number] = {}
    for index, (group, report) in enumerate(reports.items()):
        walls = (name.format(group.lower()) for name in WALLS)
        columns = walls if index else (*COLUMNS, *walls)
        shown |= {name: report.rows[row][name] for name in columns if name in report.rows[row]}
    return shown


def _over_seeds(numbers: Sequence[Number | None], column: str) -> str:
    """One number with its interval, or the mean of several with the lowest and the highest."""
    values = [number.value for number in numbers if number is not None and number.value is not None]
    if len(numbers) == 1 or not values:
        return cell(numbers[0], column)
    return cell(Number(float(np.mean(values)), min(values), max(values), "seeds"), column)


def _circumstances(report: Report) -> tuple[int, int, str, str, str | None, str | None]:
    """What a report's numbers depend on beside the images' settings."""
    features, segmenter = (None if one is None else one.hash for one in (report.encoder, report.segmenter))
    return report.n_generated, report.seed, report.hcm_hf_version, report.dataset.fingerprint, features, segmenter
