"""The trade-off of a diffusion model: quality and time by the number of denoising steps, in one table."""

import json
from collections.abc import Sequence
from pathlib import Path

from hcm_hf.data.dataset import load_dataset
from hcm_hf.errors import InputError
from hcm_hf.evaluation import REPORT_FILE, measure_speed, score
from hcm_hf.files import write_text
from hcm_hf.generation import generate_images
from hcm_hf.image_sets import fingerprint, read_split
from hcm_hf.judge import load_encoder
from hcm_hf.pipeline import HCMPipeline, prepare_sampling
from hcm_hf.report import brief, cell, markdown_table
from hcm_hf.version import __version__


COLUMNS = (
    *("kid_acdc", "relative_fd_acdc", "coverage_acdc", "spectrum_distance", "brightness_outliers", "copy_rate"),
    *("thick_share_ed", "valid_topology"),
)


def sweep_steps(
    model: str | Path,
    output_dir: str | Path,
    dataset: str | Path | None = None,
    encoder: str | Path | None = None,
    schedulers: Sequence[str] = ("ddpm", "unipc"),
    steps: Sequence[int] = (1, 2, 4, 10, 20, 50),
    num_images: int = 200,
    seed: int = 0,
) -> Path:
    """Generate and score images of a diffusion model with each scheduler and number of steps.

    The folder gets a report in `SCHEDULER-STEPS` for each, and `steps.json` and `steps.md`. What is there is kept, so
    the same call goes on after an interruption, and schedulers and steps may be added.

    Args:
        model: folder of a diffusion model or of its training run.
        output_dir: the folder to write to.
        dataset: as in `score`.
        encoder: as in `score`.
        schedulers: names of `SAMPLERS`.
        steps: calls of the network per image.
        num_images: images of each.
        seed: of the images and of the evaluation; all start from the same noise.

    Returns:
        The folder.

    Raises:
        InputError: if the model does not denoise, or as `score`.
    """
    output_dir = Path(output_dir)
    settings = [{"scheduler": name, "num_inference_steps": count} for name in schedulers for count in steps]
    if not settings:
        raise InputError("Name one scheduler or more with --schedulers, and one number or more with --steps.")
    for one in settings:
        prepare_sampling(HCMPipeline.from_pretrained(model), **one)  # what cannot be is found before the first image
    splits = load_dataset(dataset)
    reference = fingerprint(*(read_split(splits, split, ["HCM"]) for split in ("train", "test")))
    judge = None if encoder is None else load_encoder(encoder).hash
    wanted = {"n_generated": num_images, "seed": seed, "hcm_hf_version": __version__}
    rows, speeds = {}, {}
    for one in settings:
        name = "{scheduler}-{num_inference_steps}".format_map(one)
        images = generate_images(model, output_dir / name / "images", num_images, seed=seed, **one)
        path = output_dir / name / REPORT_FILE
        report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if {key: report.get(key) for key in wanted} != wanted or _compared(report) != (reference, judge):
            report = score(output_dir / name, images=images, dataset=dataset, encoder=encoder, seed=seed)
        rows[name] = report["rows"]["generated"]
        if "speed" not in report:
            report["speed"] = measure_speed(HCMPipeline.from_pretrained(model), one)
            write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")
        speeds[name] = report["speed"]
    rows["**real patients**"] = report["rows"]["real"]
    columns = [column for column in COLUMNS if column in report["rows"]["generated"]]
    lines = []
    for name, row in rows.items():
        time = ["", ""]
        if name in speeds:
            time = [str(speeds[name]["network_calls"]), brief(speeds[name]["seconds_per_1000_images"])]
        lines.append([name, *time, *(cell(row.get(column), column) for column in columns)])
    table = markdown_table([["", "calls", "seconds per 1,000 images", *columns], *lines])
    data = report["dataset"]
    below = (
        f"{num_images} images each of {report['generator']['model']} ({report['generator']['model_hash']}), seed "
        f"{seed}; dataset {data['name']} ({data['fingerprint']}), {report['n_heldout']} held-out slices of "
        f"{report['n_heldout_patients']} patients; hcm_hf {report['hcm_hf_version']}. In brackets: 95 % interval over "
        "the reference's patients. The distances prefer blurred images of few steps, and do not see walls that a "
        "solver has thickened: read them with spectrum_distance and thick_share_ed."
    )
    record = {name: {"speed": speeds.get(name), "numbers": {c: row[c] for c in columns}} for name, row in rows.items()}
    write_text(output_dir / "steps.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_text(output_dir / "steps.md", f"# Quality and time by the number of steps\n\n{table}\n\n{below}\n")
    return output_dir


def _compared(report: dict) -> tuple[str | None, str | None]:
    """What a report's numbers depend on beside the images: the slices and the encoder."""
    dataset, encoder = report.get("dataset", {}), report.get("encoder") or {}
    return dataset.get("fingerprint"), encoder.get("hash")
