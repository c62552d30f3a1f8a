"""What makes an arm's synthetic slices: a model trained on the drawn patients alone, or one that has seen others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets

from hcm_hf.data.dataset import load_dataset, read_preparation
from hcm_hf.data.identity import Identities, count_patients, read_identities, shared_patients
from hcm_hf.generation.images import DATASET_FOLDER, generate_images
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model, read_training
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.study.usefulness.plan import CLOSED, OPEN, GeneratorPlan
from hcm_hf.study.usefulness.rows import write_training_set
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES, find_family
from hcm_hf.utils.arguments import at_least, one_of
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.hub import parse_repository


ALL_GROUPS = Sampling(conditions={"group": "any"})  # as often as the model has met them
_LEAST_IMAGES = 40  # of which a generated dataset can be made
LEAST_EPOCH = 1600  # slices in an epoch of a generator's training: fewer are repeated


@dataclass(frozen=True)
class Request:
    """What a generator is asked for.

    Attributes:
        plan: the generator.
        rows: the segmented slices of the drawn patients.
        folder: of the model, which it makes if it is not there.
        seed: of training and images.
        models: where open models are, by the generator's name.
        target_group: the disease of interest.
    """

    plan: GeneratorPlan
    rows: datasets.Dataset
    folder: Path
    seed: int
    models: Mapping[str, str]
    target_group: str


def plan_closed(name: str, num_slices: int, num_steps: int | None) -> GeneratorPlan:
    """Plan a generator that is trained on each draw.

    Args:
        name: family and recipe, such as "acgan/paired".
        num_slices: slices of the whole training split.
        num_steps: of its training; by default as many as its recipe takes on the whole training split.

    Raises:
        InputError: if there is no such recipe.
    """
    family, _, recipe_name = name.partition("/")
    if not recipe_name:
        raise InputError(f"closed '{name}' names no recipe; write FAMILY/RECIPE, such as acgan/paired.")
    one_of("family", family, FAMILIES)
    if num_steps is not None:
        at_least("generator_steps", num_steps, 1)
    steps: dict[str, int] = {}
    taught: str | None = recipe_name
    while taught is not None:
        recipe = find_family(family, taught)[1]
        steps = {taught: num_steps or recipe.num_epochs * -(-num_slices // recipe.train_batch_size)} | steps
        taught = recipe.taught_by
    return GeneratorPlan(CLOSED, name, num_steps=steps)


def plan_open(model: str, resolution: int, held_out: Identities) -> GeneratorPlan:
    """Plan a generator that was trained before, on whichever patients.

    Args:
        model: its folder or repository.
        resolution: pixels a side of the dataset's slices.
        held_out: the patients who must not be among them.

    Raises:
        InputError: if it has seen one of them or does not say whom it has seen, or makes no segmentations or slices
            of another size.
    """
    folder = find_pipeline(model, argument="open_models")
    seen = read_identities(read_training(folder).get("train_patients"), f"The model {model}")
    _refuse(seen, held_out, f"open model {model}")
    pipeline = HCMPipeline.from_pretrained(folder)
    if not pipeline.makes_masks:
        raise InputError(f"open model {model} makes no segmentations, which a network needs; name another.")
    if pipeline.sample_size != resolution:
        size = pipeline.sample_size
        raise InputError(f"open model {model} makes slices of {size} px, and the dataset's have {resolution}.")
    name = model if parse_repository(model) else Path(model).resolve().name
    return GeneratorPlan(OPEN, name, hash_model(folder), count_patients(seen))


def train_closed(request: Request) -> Path:
    """Train the model of a closed generator, and its teachers before it if it has any."""
    dataset, family = request.folder / "dataset", request.plan.name.partition("/")[0]
    write_training_set(request.rows, dataset, LEAST_EPOCH)
    model = None
    for recipe, num_steps in request.plan.num_steps.items():
        config = TrainingConfig(
            family=family,
            recipe=recipe,
            dataset=str(dataset),
            output_dir=str(request.folder / recipe),
            target_group=request.target_group,
            num_steps=num_steps,
            teacher=None if model is None else str(model),
            seed=request.seed,
        )
        model = train(config) / "last"  # not the best: there are no other patients to choose by
    assert model is not None  # a plan has one training or more
    return model


def find_open(request: Request) -> Path:
    """Find the model of an open generator.

    Raises:
        InputError: if it is not the one that was planned.
    """
    folder = find_pipeline(request.models[request.plan.name], argument="open_models")
    if hash_model(folder) != request.plan.model_hash:
        raise InputError(f"open model {request.plan.name} has changed since it was planned; name another output_dir.")
    return folder


MODELS: dict[str, Callable[[Request], Path]] = {CLOSED: train_closed, OPEN: find_open}


def make_slices(
    request: Request, count: int, folder: Path, held_out: Identities, undrawn: Identities
) -> datasets.DatasetDict:
    """Make a generator's model if there is none, and slices with it.

    Args:
        request: what is asked for.
        count: number of slices.
        folder: of the slices, which are kept there.
        held_out: the patients whom no generator may have seen.
        undrawn: the training patients whom a closed one may not have seen either.

    Returns:
        The slices as the dataset that `generate_images` makes of them.

    Raises:
        InputError: if the model has seen a patient whom it must not have seen, or makes no segmentations.
    """
    if not (folder / DATASET_FOLDER).is_dir():  # it is written last
        model, number = MODELS[request.plan.kind](request), max(count, _LEAST_IMAGES)
        if not HCMPipeline.from_pretrained(model).makes_masks:
            raise InputError(f"{request.plan.title} makes no segmentations, which a network needs; name another.")
        generate_images(model, folder, number, seed=request.seed, sampling=ALL_GROUPS, save_dataset=True)
    made_of = read_preparation(folder / DATASET_FOLDER)["generator"]["train_patients"]
    forbidden = {CLOSED: held_out | undrawn, OPEN: held_out}[request.plan.kind]
    _refuse(read_identities(made_of, f"The images in {folder}"), forbidden, request.plan.title)
    return load_dataset(folder / DATASET_FOLDER)


def _refuse(seen: Identities, forbidden: Identities, who: str) -> None:
    if shared := shared_patients(forbidden, seen):
        raise InputError(
            f"{who} was trained on patient {shared[0]}, whom it must not have seen; name another model, or the "
            "`dataset` that it was trained on."
        )
