"""The whole study in one command: dataset, encoder, families, images, reports, table and figures."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hcm_hf.data.acdc import find_cohort
from hcm_hf.data.dataset import load_dataset
from hcm_hf.data.phantom import DESCRIPTION, GROUPS
from hcm_hf.data.preparation import REPORT_FILE as PREPARATION_FILE
from hcm_hf.data.schema import SPLITS
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.data.volumes import read_volumes
from hcm_hf.evaluation.images import fingerprint, read_split
from hcm_hf.evaluation.parts.features import COMPONENTS
from hcm_hf.study.plan import RECORD_FILE, Plan, read_json
from hcm_hf.study.stages import TABLE_FILE, Stage, list_stages
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.arguments import at_least, one_of
from hcm_hf.utils.devices import make_accelerator
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.names import TARGET_GROUP


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
    target_group: str = TARGET_GROUP,
    seed: int = 0,
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None,
    work_dir: str | Path | None = None,
    output_dir: str | Path | None = None,
) -> Path:
    """Reproduce the study, https://doi.org/10.17163/ings.n34.2025.09; called again, it goes on where it was.

    Under `accelerate launch` or `torchrun` the processes share training and generation.

    Args:
        acdc: the ACDC folder or its `.zip`.
        dataset: a folder that `prepare_dataset` wrote, instead; without either, the synthetic cohort is used.
        recipe: recipe of the families, "paper" or "tuned".
        families: the families to train, generate and score this time; by default all that have the recipe. The
            results show every family that has been scored.
        resolution: image size in pixels; by default that of the dataset, else 64.
        num_images: number of generated images of each family.
        num_epochs: most epochs of each training; by default those of the recipes.
        scheduler: of diffusion models: ddpm, ddim, dpmsolver++, sde-dpmsolver++ or unipc; by default the recipe's.
        num_inference_steps: sampling steps of diffusion models; by default the recipe's (50 for "paper").
        target_group: the disease of interest: what models of one group are trained on and images are compared with.
        seed: seed of training, generation and evaluation. It does not change the split of the patients.
        mixed_precision: precision of training, as in accelerate; finished runs are kept.
        work_dir: folder of the dataset, runs, images and reports; by default `reproduction/SOURCE-RESOLUTION-RECIPE`,
            where SOURCE is "acdc" or "synthetic".
        output_dir: folder of the results; by default `docs/results/SOURCE-RESOLUTION-RECIPE`.

    Returns:
        The folder of the results.

    Raises:
        InputError: on bad arguments, or if a folder holds another reproduction.
        Interrupted: if a signal stops a training; the next call goes on from there.
    """
    arguments = dict(locals())
    if acdc is not None and dataset is not None:
        raise InputError("acdc and dataset exclude each other; give one of them.")
    for family in families:
        if family not in FAMILIES:
            raise InputError(f"Unknown family '{family}' in families; choose among {', '.join(FAMILIES)}.")
    one_of("recipe", recipe, sorted({name for family in FAMILIES.values() for name in family.recipes}))
    named = [family for family in FAMILIES if recipe in FAMILIES[family].recipes]
    if any(FAMILIES[family].recipes[recipe].taught_by for family in named):
        raise InputError(f"recipe {recipe} needs a teacher; train it with scripts/train.py and its argument teacher.")
    at_least("num_images", num_images, COMPONENTS + 1)  # what the evaluation needs
    at_least("num_epochs", 1 if num_epochs is None else num_epochs, 1)
    at_least("seed", seed, 0)
    accelerator = make_accelerator(mixed_precision)
    source, resolution, patients, groups = _identify(acdc, dataset, resolution)
    target_group = Vocabulary(groups, target_group).target
    work_dir = Path(work_dir or f"reproduction/{source}-{resolution}-{recipe}")
    output_dir = Path(output_dir or f"docs/results/{source}-{resolution}-{recipe}")
    settings = {"source": source, "resolution": resolution, "recipe": recipe, "seed": seed, "patients": patients}
    settings["target_group"] = target_group
    settings |= {"scheduler": scheduler, "num_inference_steps": num_inference_steps}
    for family in named:
        recommended = FAMILIES[family].recipes[recipe].sampling
        settings |= {name: value for name, value in recommended.items() if settings[name] is None}
    _check(work_dir / RECORD_FILE, settings, "work_dir")
    _check(output_dir / TABLE_FILE, settings, "output_dir")
    if not (work_dir / RECORD_FILE).exists() and work_dir.is_dir():
        for path in work_dir.iterdir():
            if path.name not in WORK_FOLDERS:
                raise InputError(f"work_dir {work_dir} holds something else ({path.name}); name another.")
    for name in ("acdc", "dataset", "work_dir", "output_dir"):  # not where they are on this machine
        arguments[name] = arguments[name] and Path(arguments[name]).name
    plan = Plan(
        work_dir=work_dir,
        output_dir=output_dir,
        dataset=Path(dataset or work_dir / "dataset"),
        acdc=Path(acdc) if acdc else None,
        settings=settings,
        arguments=arguments,
        num_images=num_images,
        num_epochs=num_epochs,
        accelerator=accelerator,
        groups=groups,
    )
    _go(list_stages(plan, families or named, named), plan)
    accelerator.print(f"results: {output_dir / 'table1.md'}")
    return output_dir


def _go(stages: list[Stage], plan: Plan) -> None:
    """Run the stages that are not finished, in order; all processes agree on which they are."""
    accelerator = plan.accelerator
    if accelerator.is_main_process:
        print(describe(stages), flush=True)
    for stage in stages:
        accelerator.wait_for_everyone()  # until all have written
        finished = stage.is_finished()
        accelerator.wait_for_everyone()  # until all have read
        if finished:
            continue
        accelerator.print(f"\n== {stage.name}", flush=True)
        started = time.monotonic()
        if accelerator.is_main_process and plan.dataset.is_dir():  # without a dataset there is nothing to resume
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
    """Return a line for each stage, done or left with its estimate, and a line with the sum."""
    width, lines, left = max(len(stage.name) for stage in stages), [], []
    for stage in stages:
        if stage.is_finished():
            lines.append(f"done  {stage.name}")
        else:
            left.append(stage.estimate())
            lines.append(f"left  {stage.name:<{width}}  {_about(left[-1])}")
    if not left:
        return "\n".join([*lines, f"all {len(stages)} stages are done"])
    known = [seconds for seconds in left if seconds is not None]
    total = _about(sum(known) if known else None)
    if known and len(known) < len(left):
        total += f" for {len(known)} of them, unknown for {len(left) - len(known)}"
    return "\n".join([*lines, f"{len(left)} of {len(stages)} stages left: {total}"])


def _about(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 100:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"


def _identify(
    acdc: str | Path | None, dataset: str | Path | None, resolution: int | None
) -> tuple[str, int, str, tuple[str, ...]]:
    """Return the source of the patients, the image size, a hash of these patients, and the names of all groups."""
    if dataset is not None:
        splits = load_dataset(dataset, resolution)
        prepared = read_json(Path(dataset) / PREPARATION_FILE)
        if not prepared:
            raise InputError(f"dataset {dataset} has no {PREPARATION_FILE}; make it with scripts/prepare_dataset.py.")
        patients = fingerprint(*(read_split(splits, name) for name in SPLITS))
        return prepared["source"], prepared["resolution"], patients, Vocabulary.of(splits).groups
    if acdc is None:
        return "synthetic", resolution or 64, DESCRIPTION, GROUPS
    cohort = find_cohort(acdc)
    found = cohort.patients
    synthetic = all(next(read_volumes(one)).description.startswith(DESCRIPTION) for one in found)
    known = [(one.name, one.half, one.group, one.phases, one.height, one.weight) for one in found]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    return "synthetic" if synthetic else "acdc", resolution or 64, digest, cohort.group_names


def _check(path: Path, settings: dict, argument: str) -> None:
    """Raise an `InputError` if a record belongs to another reproduction."""
    before = {"target_group": TARGET_GROUP} | read_json(path).get("settings", settings)  # it was always this one
    for name, value in settings.items():
        if before.get(name) != value:
            other = "of other patients" if name == "patients" else f"with {name} {before.get(name)}, not {value}"
            raise InputError(f"{argument} {path.parent} holds a reproduction {other}; name another.")
