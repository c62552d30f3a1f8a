"""The whole study in one command: dataset, encoder, families, images, reports, table and figures."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hcm_hf.data.acdc import find_cohort, read_volumes
from hcm_hf.data.dataset import REPORT_FILE as PREPARATION_FILE
from hcm_hf.data.dataset import SPLITS, load_dataset
from hcm_hf.data.phantom import DESCRIPTION
from hcm_hf.evaluation.images import fingerprint, read_split
from hcm_hf.evaluation.parts.assessment import COMPONENTS
from hcm_hf.study.plan import RECORD_FILE, Plan, read_json
from hcm_hf.study.stages import TABLE_FILE, Generation, Preparation, Publication, Scoring, Stage, Training
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.devices import make_accelerator
from hcm_hf.utils.errors import InputError


WORK_FOLDERS = {"dataset", "runs", "images", "reports"}


def reproduce(
    acdc: str | Path | None = None,
    dataset: str | Path | None = None,
    recipe: str = "paper",
    families: Sequence[str] = (),
    resolution: int | None = None,
    num_images: int = 1000,
    num_epochs: int | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None,
    work_dir: str | Path | None = None,
    output_dir: str | Path | None = None,
) -> Path:
    """Reproduce the study, https://doi.org/10.17163/ings.n34.2025.09; called again, it goes on and skips what is done.

    Under `accelerate launch` or `torchrun` the processes share training and generation.

    Args:
        acdc: the ACDC folder or its `.zip`.
        dataset: a folder that `prepare_dataset` wrote, instead; with neither, the synthetic cohort.
        recipe: of the families.
        families: the families to train, generate and score this time; by default all that have the recipe. The
            results show every family that is scored, whenever that was.
        resolution: pixels a side; by default the dataset's, else 64.
        num_images: generated images of each family.
        num_epochs: cuts every training to as many epochs.
        scheduler: of diffusion models: ddpm, ddim, dpmsolver++, sde-dpmsolver++ or unipc; by default the recipe's.
        num_inference_steps: of diffusion models; by default the recipe's, for the study's DDPM 50.
        seed: of training, generation and evaluation. The split of the patients does not depend on it.
        mixed_precision: of training, as accelerate has it; runs that are finished stay as they are.
        work_dir: dataset, runs, images and reports; by default `reproduction/SOURCE-RESOLUTION-RECIPE`, where SOURCE
            is "acdc" or "synthetic".
        output_dir: the results; by default `docs/results/SOURCE-RESOLUTION-RECIPE`.

    Returns:
        The folder of the results.

    Raises:
        InputError: on bad arguments, or folders that hold another reproduction.
        Interrupted: on a signal that asks to stop while training; everything is there to go on from.
    """
    arguments = dict(locals())
    if acdc is not None and dataset is not None:
        raise InputError("--acdc and --dataset exclude each other; give the one or the other.")
    for family in families:
        if family not in FAMILIES:
            raise InputError(f"Unknown family '{family}' in --families; choose among {', '.join(FAMILIES)}.")
    named = [family for family in FAMILIES if recipe in FAMILIES[family].recipes]
    if not named:
        known = sorted({name for family in FAMILIES.values() for name in family.recipes})
        raise InputError(f"Unknown --recipe '{recipe}'; choose among {', '.join(known)}.")
    if any(FAMILIES[family].recipes[recipe].taught_by for family in named):
        raise InputError(f"--recipe {recipe} learns from a teacher; train it with scripts/train.py --teacher.")
    for name, value, least in (
        ("num_images", num_images, COMPONENTS + 1),  # what the evaluation needs
        ("num_epochs", 1 if num_epochs is None else num_epochs, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise InputError(f"--{name} is {value}; it must be at least {least}.")
    try:
        accelerator = make_accelerator(mixed_precision=mixed_precision)
    except ValueError as error:
        raise InputError(f"--mixed_precision {mixed_precision} does not work here: {error}") from error
    source, resolution, patients = _identify(acdc, dataset, resolution)
    work_dir = Path(work_dir or f"reproduction/{source}-{resolution}-{recipe}")
    output_dir = Path(output_dir or f"docs/results/{source}-{resolution}-{recipe}")
    settings = {"source": source, "resolution": resolution, "recipe": recipe, "seed": seed, "patients": patients}
    asked = {"scheduler": scheduler, "num_inference_steps": num_inference_steps}
    for family in named:
        recommended = FAMILIES[family].recipes[recipe].sampling
        asked = {name: recommended.get(name) if value is None else value for name, value in asked.items()}
    settings |= asked
    _check(work_dir / RECORD_FILE, settings, "--work_dir")
    _check(output_dir / TABLE_FILE, settings, "--output_dir")
    if not (work_dir / RECORD_FILE).exists() and work_dir.is_dir():
        for path in work_dir.iterdir():
            if path.name not in WORK_FOLDERS:
                raise InputError(f"--work_dir {work_dir} holds something else ({path.name}); name another.")
    for name in ("acdc", "dataset", "work_dir", "output_dir"):  # not where they are on this machine
        arguments[name] = arguments[name] and Path(arguments[name]).name
    plan = Plan(
        work_dir=work_dir,
        output_dir=output_dir,
        dataset=Path(dataset or work_dir / "dataset"),
        acdc=acdc and Path(acdc),
        settings=settings,
        arguments=arguments,
        num_images=num_images,
        num_epochs=num_epochs,
        accelerator=accelerator,
    )
    _go(list_stages(plan, families or named, named), plan)
    accelerator.print(f"results: {output_dir / 'table1.md'}")
    return output_dir


def list_stages(plan: Plan, families: Sequence[str], known: Sequence[str]) -> list[Stage]:
    """What there is to do, in order.

    Args:
        plan: of the reproduction.
        families: those to work on.
        known: those to show where they are scored.
    """
    preparation = Preparation(plan)
    encoder = Training(preparation, "encoder", "default")
    scorings = {
        family: Scoring(Generation(Training(preparation, family, plan.settings["recipe"])), encoder)
        for family in known
    }
    stages: list[Stage] = [preparation, encoder]
    for family in (family for family in known if family in families):
        stages += [scorings[family].generation.training, scorings[family].generation, scorings[family]]
    return [*stages, Publication(list(scorings.values()), families, encoder)]


def _go(stages: list[Stage], plan: Plan) -> None:
    """Run what is not done, one stage after the other; all processes agree on what that is."""
    accelerator = plan.accelerator
    if accelerator.is_main_process:
        print(describe(stages), flush=True)
    for stage in stages:
        accelerator.wait_for_everyone()  # nobody writes any more
        done = stage.done()
        accelerator.wait_for_everyone()  # nobody reads any more
        if done:
            continue
        accelerator.print(f"\n== {stage.name}", flush=True)
        started = time.monotonic()
        if accelerator.is_main_process and plan.dataset.is_dir():  # without one there is nothing to go on from
            plan.note(stage.name)
        try:
            if stage.shared or accelerator.is_main_process:
                stage.run()
        finally:
            if accelerator.is_main_process and plan.dataset.is_dir():
                plan.note(stage.name, time.monotonic() - started)
        if accelerator.is_main_process:
            print("\n" + describe(stages), flush=True)


def describe(stages: Sequence[Stage]) -> str:
    """A line for each stage: done, or left and for about how long; then the sum."""
    lines, total, unknown, left = [], 0.0, 0, 0
    width = max(len(stage.name) for stage in stages)
    for stage in stages:
        if stage.done():
            lines.append(f"done  {stage.name}")
            continue
        seconds = stage.estimate()
        left += 1
        unknown += seconds is None
        total += seconds or 0.0
        lines.append(f"left  {stage.name:<{width}}  {'unknown' if seconds is None else 'about ' + _duration(seconds)}")
    if left:
        known = f"about {_duration(total)}"
        if unknown:
            known = f"{known} for {left - unknown} of them, unknown for {unknown}" if left > unknown else "unknown"
        lines.append(f"{left} of {len(stages)} stages left: {known}")
    else:
        lines.append(f"all {len(stages)} stages are done")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _identify(acdc: str | Path | None, dataset: str | Path | None, resolution: int | None) -> tuple[str, int, str]:
    """Where the patients come from, the image size, and a hash that tells these patients from others."""
    if dataset is not None:
        splits = load_dataset(dataset, resolution)
        prepared = read_json(Path(dataset) / PREPARATION_FILE)
        if not prepared:
            raise InputError(
                f"--dataset {dataset} has no {PREPARATION_FILE}; make it with scripts/prepare_dataset.py."
            )
        return prepared["source"], prepared["resolution"], fingerprint(*(read_split(splits, name) for name in SPLITS))
    if acdc is None:
        return "synthetic", resolution or 64, DESCRIPTION
    patients = find_cohort(acdc).patients
    synthetic = all(next(read_volumes(one)).description.startswith(DESCRIPTION) for one in patients)
    known = [(one.name, one.half, one.group, one.phases, one.height, one.weight) for one in patients]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    return "synthetic" if synthetic else "acdc", resolution or 64, digest


def _check(path: Path, settings: dict, argument: str) -> None:
    """Raise an `InputError` if a record is of another reproduction."""
    before = read_json(path).get("settings", settings)
    for name, value in settings.items():
        if before.get(name) != value:
            other = "of other patients" if name == "patients" else f"with {name} {before.get(name)}, not {value}"
            raise InputError(f"{argument} {path.parent} holds a reproduction {other}; name another.")
