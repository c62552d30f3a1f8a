"""One cell: make its training slices, train the network, measure it on the held-out patients, write one file."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np
from filelock import FileLock

from hcm_hf.data.identity import Identities, identify, shared_patients
from hcm_hf.evaluation.encoder import Instrument
from hcm_hf.evaluation.typed import plain, read_typed
from hcm_hf.evaluation.usefulness import HeldOut, PatientScores, measure, segmented_rows, tell_apart
from hcm_hf.models import SliceEncoder
from hcm_hf.study.usefulness.arms import ARMS, BASELINE, Augmentation, Stage
from hcm_hf.study.usefulness.generators import Request, make_slices
from hcm_hf.study.usefulness.plan import Cell, Plan, draw_patients, file_name
from hcm_hf.study.usefulness.rows import adopt, decode, write_training_set
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import find_family
from hcm_hf.utils.devices import find_device
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import read_json, write_text
from hcm_hf.version import __version__


CELLS_FOLDER, WORK_FOLDER = "cells", "work"
LEAST_EPOCH = 3200  # slices: fewer are repeated, so that an epoch, after which a run is saved, is not a few steps
NETWORK = ("segmenter", "default")  # family and recipe of the network that is trained
_NEVER = 10**9  # epochs


@dataclass(frozen=True)
class CellResult:
    """What is written of a cell.

    Attributes:
        plan: hash of the plan.
        arm: as in the cell, and so on.
        generator: its title.
        patients: number of training patients.
        draw: which draw.
        seed: of the training.
        train_patients: the names of the drawn patients.
        num_real: segmented slices of these patients.
        num_synthetic: generated slices that the network was trained on.
        num_steps: optimiser steps.
        seconds: wall time, with that of generators and slices which this cell had to make first.
        seconds_of_training: wall time of this cell's own training and measurement.
        version: of the package.
        audit_auc: how well generated slices can be told from real ones in the network's own features.
        scores: what the network does on each held-out patient, by name.
    """

    plan: str
    arm: str
    generator: str
    patients: int
    draw: int
    seed: int
    train_patients: list[str]
    num_real: int
    num_synthetic: int
    num_steps: int
    seconds: float
    seconds_of_training: float
    version: str
    audit_auc: float | None
    scores: dict[str, PatientScores]


class Continued:
    """Builds a network that goes on where an earlier training ended.

    Args:
        folder: of the saved network.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, **sizes: object) -> SliceEncoder:
        """The network; its sizes are those that it was saved with."""
        return SliceEncoder.from_pretrained(self.folder, use_safetensors=True).train()


@dataclass(frozen=True)
class Experiment:
    """A plan with its data and its folder.

    Attributes:
        plan: the plan.
        output_dir: of plan, cells and work.
        training: the segmented slices of all training patients.
        held_out: the held-out patients.
        models: where open models are, by the generator's name.
    """

    plan: Plan
    output_dir: Path
    training: datasets.Dataset
    held_out: HeldOut
    models: Mapping[str, str]

    @cached_property
    def groups(self) -> dict[str, str]:
        """The group of each training patient."""
        return training_groups(self.training)

    def path(self, cell: Cell) -> Path:
        """Where a cell is written."""
        return self.output_dir / CELLS_FOLDER / f"{cell.key}.json"

    def work(self, *names: str) -> Path:
        """A folder of what is made on the way."""
        return self.output_dir.joinpath(WORK_FOLDER, *names)

    def read(self, cell: Cell) -> CellResult | None:
        """What is written of a cell; None if nothing is.

        Raises:
            InputError: if it is damaged, or of another plan.
        """
        path = self.path(cell)
        if not path.is_file():
            return None
        written = read_json(path)
        try:
            result: CellResult = read_typed(CellResult, written)
        except ValueError as error:
            raise InputError(f"{path} is damaged; delete it to run this cell again.") from error
        identity = (result.plan, result.arm, result.generator, result.patients, result.draw, result.seed)
        if identity != (self.plan.hash, *vars(cell).values()) or set(result.scores) != set(self.held_out.groups):
            raise InputError(f"{path} is of another plan or cell; delete it to run this cell again.")
        return result

    def run(self, cell: Cell) -> CellResult:
        """Run a cell and write it; a run that was interrupted before goes on.

        Raises:
            InputError: as `train`, and if a generator has seen a patient whom it must not have seen.
        """
        started, arm = time.monotonic(), ARMS[cell.arm]
        material = CellMaterial(self, cell)
        folder = self.work("runs", cell.key)
        sets = [stage.slices(material) for stage in arm.stages]
        prepared = time.monotonic()
        network = fit(arm.stages, sets, arm.augmentation, self.plan.num_steps, cell.seed, folder)
        instrument = load_network(network, material.identities)
        made = [
            rows
            for stage, parts in zip(arm.stages, sets, strict=True)
            for source, rows in zip(stage.sources, parts, strict=True)
            if source.is_synthetic and len(rows)
        ]
        scores = measure(instrument, self.held_out, self.plan.target_group)
        audit = None
        if made:
            images, real = (decode(rows)[0].astype(np.float32) / 255 for rows in (made[0], material.real))
            audit = tell_apart(instrument, images, real, np.array(material.real["patient"]), cell.seed)
        ended = time.monotonic()
        result = CellResult(
            plan=self.plan.hash,
            **vars(cell),
            train_patients=material.names,
            num_real=len(material.real),
            num_synthetic=sum(map(len, made)),
            num_steps=self.plan.num_steps,
            seconds=ended - started,
            seconds_of_training=ended - prepared,
            version=__version__,
            audit_auc=audit,
            scores=scores,
        )
        write_text(self.path(cell), json.dumps(plain(result), indent=1, allow_nan=False) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        return result


@dataclass(frozen=True)
class CellMaterial:
    """What the training slices of a cell are made of; see `Material`.

    Attributes:
        experiment: the cell's.
        cell: the cell.
    """

    experiment: Experiment
    cell: Cell

    @cached_property
    def names(self) -> list[str]:
        """The drawn patients, the same in all arms."""
        return draw_patients(self.experiment.groups, self.cell.patients, self.cell.draw)

    @cached_property
    def real(self) -> datasets.Dataset:
        """Their segmented slices."""
        return of_patients(self.experiment.training, self.names)

    @property
    def seed(self) -> int:
        """Of the draw."""
        return self.cell.draw

    @property
    def identities(self) -> Identities:
        """Who the drawn patients are."""
        return identities_of(self.real)

    def generated(self, count: int) -> datasets.Dataset:
        """The first `count` slices of the cell's generator."""
        experiment, generator = self.experiment, self.experiment.plan.generator(self.cell.generator)
        folder = experiment.work("generators", file_name(self.cell.generator), self.cell.place)
        everyone = identities_of(experiment.training)
        undrawn = {patient: volumes for patient, volumes in everyone.items() if patient not in self.names}
        target = experiment.plan.target_group
        request = Request(generator, self.real, folder / "model", self.seed, experiment.models, target)
        # All arms look at the same slices: as many are made as any of them takes.
        most = max(ARMS[arm].candidates for arm in experiment.plan.arms) * len(self.real)
        with claimed(folder):
            made = make_slices(request, most, folder / "images", experiment.held_out.identities, undrawn)
        return adopt(made, self.real, self.cell.generator).select(range(count))

    def segmenter(self) -> Instrument:
        """The network of real slices and classical augmentation, with seed 0."""
        folder, arm = self.experiment.work("segmenters", self.cell.place), ARMS[BASELINE]
        with claimed(folder):
            sets = [stage.slices(self) for stage in arm.stages]
            network = fit(arm.stages, sets, arm.augmentation, self.experiment.plan.num_steps, 0, folder)
        return load_network(network, self.identities)


def fit(
    stages: tuple[Stage, ...],
    sets: list[list[datasets.Dataset]],
    augmentation: Augmentation,
    num_steps: int,
    seed: int,
    folder: Path,
) -> Path:
    """Train the network in stages; called again, it goes on.

    Args:
        stages: of the training.
        sets: the slices of each source of each.
        augmentation: of all of them.
        num_steps: optimiser steps of all stages together.
        seed: of initialisation, order and augmentation.
        folder: of datasets and runs.

    Returns:
        The folder of the network after the last step; nothing is chosen by held-out patients.
    """
    family, name = NETWORK
    recipe = replace(find_family(family, name)[1], losses={"augmentation": augmentation})
    ends = np.rint(num_steps * np.cumsum([stage.share for stage in stages])).astype(int).tolist()
    for index, (parts, begin, end) in enumerate(zip(sets, [0, *ends[:-1]], ends, strict=True)):
        place = folder / str(index)
        write_training_set(datasets.concatenate_datasets(parts), place / "dataset", LEAST_EPOCH)
        config = TrainingConfig(
            family=family,
            recipe=name,
            dataset=str(place / "dataset"),
            output_dir=str(place / "run"),
            num_steps=end - begin,
            seed=seed,
            sample_epochs=_NEVER,
        )
        trained = train(config, recipe) / "last"
        recipe = replace(recipe, networks={"encoder": Continued(trained)})
    return trained


def load_network(folder: Path, train_patients: Identities) -> Instrument:
    """The network that `fit` has trained, as an instrument."""
    device = find_device()
    network = SliceEncoder.from_pretrained(folder, use_safetensors=True).to(device).eval()
    return Instrument(network, __version__, "", train_patients, device)


def claimed(folder: Path) -> FileLock:
    """The lock of a folder that several cells use: the first one fills it, the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.parent / f".{folder.name}.lock")


def read_training_rows(dataset: datasets.DatasetDict, held_out: HeldOut) -> datasets.Dataset:
    """The segmented slices of the training patients.

    Raises:
        InputError: if there are none, or one of the patients is held out too, under whatever name.
    """
    rows = segmented_rows(dataset["train"])
    if not len(rows):
        raise InputError("The training split has no slice with a segmentation; prepare the masks too.")
    if shared := shared_patients(identities_of(rows), held_out.identities):
        raise InputError(f"Patient {shared[0]} of the training split is held out too; prepare the dataset again.")
    return rows


def training_groups(rows: datasets.Dataset) -> dict[str, str]:
    """The group of each patient of some rows."""
    names = rows.features["group"].names
    return {patient: names[group] for patient, group in zip(rows["patient"], rows["group"], strict=True)}


def identities_of(rows: datasets.Dataset) -> Identities:
    """The patients of some rows."""
    return identify(list(rows["patient"]), list(rows["volume_sha256"]))


def of_patients(rows: datasets.Dataset, names: list[str]) -> datasets.Dataset:
    """The rows of some patients."""
    return rows.select(np.flatnonzero(np.isin(list(rows["patient"]), names)))
