"""The stages of a reproduction: each knows whether it is finished, how to run and about how long that takes.

A stage reads from its files whether it is finished, so a reproduction goes on after an interruption.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple

from hcm_hf.data.slices import Slices
from hcm_hf.data.vocabulary import Chosen
from hcm_hf.evaluation.encoder import hash_encoder
from hcm_hf.evaluation.extractors import is_installed
from hcm_hf.evaluation.images import MOST_IMAGES
from hcm_hf.evaluation.kept import PARTS_FOLDER
from hcm_hf.evaluation.report import REPORT_FILE, Report, Source
from hcm_hf.evaluation.scoring import measure_speed, score
from hcm_hf.generation.images import MANIFEST_FILE, SETTINGS_FILE, find_images, generate_images
from hcm_hf.pipelines.auto import hash_model
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.study.figures import draw_figures
from hcm_hf.study.plan import ENVIRONMENT_FILE, Plan, read_json
from hcm_hf.study.results import render_tables, summarize
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.objectives.base import Objective
from hcm_hf.training.recipes import find_family
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import read_json_lines, write_text
from hcm_hf.utils.names import CONFIG_FILE, INSTRUMENT_FOLDERS
from hcm_hf.version import __version__


TABLE_FILE = "table1.json"
ALL_GROUPS = "all-groups"  # folder of the images and reports on all groups, by family
ENCODER_FOLDER = "encoder"  # in the folder of runs


class Stage(NamedTuple):
    """One step of a reproduction."""

    name: str
    is_finished: Callable[[], bool]  # whether its files are there, complete, and made from those of the stages before
    run: Callable[[], None]  # begins, or goes on from what is there
    estimate: Callable[[], float | None] = lambda: None  # seconds left on this machine; None if unknown
    shared: bool = False  # whether all processes run it, or only the main one


class Training:
    """One training run: a family or one of the networks of the evaluation.

    Args:
        plan: the plan of the reproduction.
        family: the name of the family.
        recipe: its recipe.
        folder: of the run, in the folder of runs; the family's name by default.

    Raises:
        InputError: if the family or its recipe is unknown, or it cannot be built for this image size.
    """

    def __init__(self, plan: Plan, family: str, recipe: str, folder: str | None = None):
        self.plan, self.family, self.recipe_name = plan, family, recipe
        self.recipe = find_family(family, recipe)[1]
        self.run_dir = plan.work_dir / "runs" / (folder or family)
        self.num_epochs = min(self.recipe.num_epochs, plan.num_epochs or self.recipe.num_epochs)
        networks = self.build().named_children()
        self.parameters = {name: sum(one.numel() for one in network.parameters()) for name, network in networks}

    def stages(self) -> list[Stage]:
        """Return what there is to do, in order."""
        return [Stage(f"train {self.family}", self.is_trained, self.train, self.training_left, shared=True)]

    def build(self) -> Objective:
        """Return new networks."""
        resolution = self.plan.settings["resolution"]
        try:
            return self.recipe.build(resolution, self.plan.vocabulary)
        except ValueError as error:
            raise InputError(f"{self.family} cannot be built for images of {resolution} px: {error}") from error

    def slices(self) -> tuple[Slices, Slices]:
        """Return the training and validation slices of the recipe's groups."""
        return self.plan.slices(self.recipe.groups)

    def is_trained(self) -> bool:
        """Whether the run is finished; its precision does not matter, nor do more epochs than are asked for."""
        written = read_json(self.run_dir / CONFIG_FILE)
        if not written.get("finished") or not self.plan.is_prepared():
            return False
        asked = {"family": self.family, "recipe": self.recipe_name, "seed": self.plan.settings["seed"]}
        asked["groups"] = list(self.plan.vocabulary.choose(self.recipe.groups))
        asked["dataset_fingerprint"] = "".join(one.fingerprint() for one in self.slices())
        return written | asked == written and written["num_epochs"] >= self.num_epochs

    def train(self) -> None:
        """Begin or go on."""
        config = TrainingConfig(
            family=self.family,
            recipe=self.recipe_name,
            dataset=str(self.plan.dataset),
            output_dir=str(self.run_dir),
            num_epochs=self.num_epochs,
            target_group=self.plan.settings["target_group"],
            mixed_precision=self.plan.arguments["mixed_precision"],
            seed=self.plan.settings["seed"],
        )
        train(config)

    def facts(self) -> dict:
        """Return what a reader of the results should know of a finished run."""
        written = read_json(self.run_dir / CONFIG_FILE)
        progress = written["progress"]
        return {
            "parameters": self.parameters,
            **{name: written[name] for name in ("groups", "num_epochs", "mixed_precision", "num_processes")},
            "recipe_epochs": self.recipe.num_epochs,
            "steps": progress["step"],
            "best_step": progress["best_step"],
            "validation_loss": progress["best_loss"],
            "seconds": progress["seconds"],
        }

    def training_left(self) -> float | None:
        """Estimate up to the last epoch, at the run's own pace or that of one step; ignores early stopping."""
        if not self.plan.is_prepared():
            return None
        batch_size = self.recipe.train_batch_size * self.plan.accelerator.num_processes
        steps = self.num_epochs * -(-len(self.slices()[0]) // batch_size)
        progress = read_json(self.run_dir / "last" / CONFIG_FILE).get("progress")
        if progress:
            return max(steps - progress["step"], 0) * progress["seconds"] / progress["step"]
        return steps * self._seconds_per_step

    @cached_property
    def _seconds_per_step(self) -> float:
        """From new networks, after a step that allocates memory; without the optimizer and validation."""
        accelerator, objective = self.plan.accelerator, self.build()
        objective.to(accelerator.device)
        batch = self.slices()[0].batch(slice(self.recipe.train_batch_size)).to(accelerator.device)
        for _ in range(2):
            started = time.perf_counter()
            with accelerator.autocast():
                for _, loss in objective.losses(batch):
                    loss.backward()
            loss.item()  # waits for the device
        return time.perf_counter() - started


class EncoderTraining:
    """The runs of the feature encoder and of the segmenter, in one folder."""

    def __init__(self, plan: Plan):
        self.run_dir = plan.work_dir / "runs" / ENCODER_FOLDER
        self.runs = [Training(plan, name, "default", f"{ENCODER_FOLDER}/{name}") for name in INSTRUMENT_FOLDERS]

    def stages(self) -> list[Stage]:
        """Return what there is to do, in order."""
        return [stage for run in self.runs for stage in run.stages()]

    def is_trained(self) -> bool:
        """Whether both runs are finished."""
        return all(run.is_trained() for run in self.runs)

    def facts(self) -> dict[str, dict]:
        """Return what a reader should know of both, by name."""
        return {run.family: run.facts() for run in self.runs}


class Family(Training):
    """A family's run, images and report; the images are of the target group, and are compared with its patients.

    Raises:
        InputError: as `Training`, and if it cannot be sampled as asked.
    """

    groups: ClassVar[Chosen] = "target"
    conditions: ClassVar[Mapping[str, str] | None] = None  # what a model of several groups is asked for: its default
    folder: ClassVar[str] = ""  # below those of images and of reports
    shown: ClassVar[str] = ""  # in the names of the stages

    def __init__(self, plan: Plan, family: str, recipe: str, encoder: EncoderTraining):
        super().__init__(plan, family, recipe)
        self.encoder = encoder
        self.image_dir, self.report_dir = (
            plan.work_dir / kind / self.folder / family for kind in ("images", "reports")
        )
        pipeline = self.build().pipeline()
        self.knows_groups = "group" in pipeline.conditions.axes and self.recipe.groups == "all"
        names = ("scheduler", "num_inference_steps") if pipeline.denoises else ()
        self.sampling = Sampling(self.conditions, **{name: plan.settings[name] for name in names})
        self.noted = self.sampling.applied_to(pipeline)[1].noted  # bad settings are found now, not after the training

    def stages(self) -> list[Stage]:
        """Return what there is to do, in order."""
        return [
            *super().stages(),
            Stage(f"generate {self.name}", self.is_generated, self.generate, self.generation_left, shared=True),
            Stage(f"score {self.name}", self.is_scored, self.score, self.scoring_left),
        ]

    @property
    def name(self) -> str:
        """The family, and what it is asked for where that is not the target group."""
        return self.family + self.shown

    def is_generated(self) -> bool:
        """Whether all images are there, and the model of the finished run made them."""
        settings = read_json(self.image_dir / SETTINGS_FILE)
        if not settings or settings | self.noted != settings:
            return False
        if not self.is_trained() or settings["model_hash"] != hash_model(self.run_dir):
            return False
        files = self._manifest()
        return len(files) >= self.plan.num_images and all((self.image_dir / file).is_file() for file in files)

    def _manifest(self) -> list[str]:
        path = self.image_dir / MANIFEST_FILE
        lines = read_json_lines(path) if path.is_file() else []
        return [str(line["file"]) for line in lines if "file" in line]

    def generate(self) -> None:
        """Generate what is missing; images of another model are removed first."""
        settings, accelerator = read_json(self.image_dir / SETTINGS_FILE), self.plan.accelerator
        current = {"model_hash": hash_model(self.run_dir), "version": __version__}
        accelerator.wait_for_everyone()
        if settings and settings | current != settings and accelerator.is_main_process:
            shutil.rmtree(self.image_dir)
        accelerator.wait_for_everyone()
        seed, count = self.plan.settings["seed"], self.plan.num_images
        generate_images(self.run_dir, self.image_dir, count, seed=seed, sampling=self.sampling)

    def generation_left(self) -> float:
        """Estimate for the images that are missing."""
        missing = max(self.plan.num_images - len(find_images(self.image_dir)), 0)
        return missing * self._seconds_per_image / self.plan.accelerator.num_processes

    @cached_property
    def _seconds_per_image(self) -> float:
        """From a batch of new networks, and no more than two sampling steps."""
        pipeline = self.build().pipeline().to(self.plan.accelerator.device)
        full = self.sampling.applied_to(pipeline)[1]
        timed = full.num_inference_steps and min(full.num_inference_steps, 2)
        speed = measure_speed(pipeline, Source(scheduler=full.scheduler, num_inference_steps=timed))
        return speed.seconds_per_1000_images / 1000 * (full.num_inference_steps or 1) / (timed or 1)

    def is_scored(self) -> bool:
        """Whether the report is of these images, by this encoder and this version."""
        report = Report.load(self.report_dir) if (self.report_dir / REPORT_FILE).is_file() else None
        if not report or not report.encoder or not report.segmenter:
            return False
        if not (self.is_generated() and self.encoder.is_trained()):
            return False
        return (
            report.generator.model_hash == read_json(self.image_dir / SETTINGS_FILE)["model_hash"]
            and report.n_generated == min(len(self._manifest()), MOST_IMAGES)
            and (report.encoder.hash, report.segmenter.hash) == hash_encoder(self.encoder.run_dir)
            and (report.hcm_hf_version, report.seed) == (__version__, self.plan.settings["seed"])
            and report.paper_compat_artefact is not None
            and not ("realism" in report.left_out and is_installed())
        )

    def score(self) -> None:
        """Score the images; a report of other images is removed first, an interrupted one goes on."""
        if (self.report_dir / REPORT_FILE).is_file() or not (self.report_dir / PARTS_FOLDER).is_dir():
            shutil.rmtree(self.report_dir, ignore_errors=True)
        score(
            self.report_dir,
            images=self.image_dir,
            model=self.run_dir,
            dataset=self.plan.dataset,
            groups=self.plan.vocabulary.choose(self.groups),
            encoder=self.encoder.run_dir,
            paper_compat=True,
            seed=self.plan.settings["seed"],
        )

    def scoring_left(self) -> float | None:
        """Estimate: as long as all scoring so far of the family that took longest."""
        taken: Counter[str] = Counter()
        for call in self.plan.calls():
            taken.update({name: seconds for name, seconds in call["seconds"].items() if seconds is not None})
        return max((seconds for name, seconds in taken.items() if name.startswith("score ")), default=None)

    def report(self) -> Report:
        """Return the report without this machine's paths, and without figures, which stay in the work folder."""
        names = f"runs/{self.family}", self.plan.settings["source"], f"runs/{ENCODER_FOLDER}"
        return Report.load(self.report_dir).renamed(*names)


class AllGroups(Family):
    """The same run, asked for all groups as they are met in training, and compared with the patients of all groups."""

    groups = "all"
    conditions = {"group": "any"}  # noqa: RUF012
    folder = ALL_GROUPS
    shown = ", all groups"

    def stages(self) -> list[Stage]:
        """Return what there is to do; the training is the family's."""
        return super().stages()[1:]


class Publication:
    """Tables, figures and reports of all families that are scored, whether or not they were asked for this time."""

    def __init__(
        self,
        plan: Plan,
        families: Mapping[str, Family],
        of_all: Mapping[str, AllGroups],
        asked: Sequence[str],
        encoder: EncoderTraining,
    ):
        self.plan, self.families, self.of_all, self.asked, self.encoder = plan, families, of_all, asked, encoder
        self.stage = Stage("write the results", self.is_published, self.publish)

    def is_published(self) -> bool:
        """Whether the results agree with the reports, and no file is missing."""
        output_dir, scored, of_all = self.plan.output_dir, _scored(self.families), _scored(self.of_all)
        table = read_json(output_dir / TABLE_FILE)
        if not table or not set(scored).issuperset(self.asked):
            return False
        return (
            all((output_dir / file).is_file() for file in table.pop("files"))
            and table == self._summary(scored, of_all)
            and read_json(output_dir / ENVIRONMENT_FILE) == self._circumstances()
            and all(
                read_json(output_dir / one.folder / one.family / REPORT_FILE) == one.report().to_json()
                for one in (*scored.values(), *of_all.values())
            )
        )

    def publish(self) -> None:
        """Write everything anew, the table last."""
        plan, output_dir = self.plan, self.plan.output_dir
        scored, of_all = _scored(self.families), _scored(self.of_all)
        for one in (*scored.values(), *of_all.values()):
            one.report().save(output_dir / one.folder / one.family)
        sources, seed = (plan.work_dir / "runs", plan.work_dir / "images"), plan.settings["seed"]
        target = plan.settings["target_group"]
        draw_figures(*sources, output_dir, plan.dataset, list(scored), seed=seed, target_group=target)
        write_text(output_dir / ENVIRONMENT_FILE, json.dumps(self._circumstances(), indent=2) + "\n")
        summary = self._summary(scored, of_all)
        write_text(output_dir / "table1.md", render_tables(summary))
        files = sorted(path.relative_to(output_dir).as_posix() for path in output_dir.rglob("*") if path.is_file())
        write_text(output_dir / TABLE_FILE, json.dumps(summary | {"files": files}, indent=2, allow_nan=False) + "\n")

    def _circumstances(self) -> dict:
        """Return what was done where, except for this stage, which is recorded after it."""
        calls = self.plan.calls()
        for call in calls:
            call["seconds"].pop(self.stage.name, None)
        return {"calls": calls}

    def _summary(self, scored: Mapping[str, Family], of_all: Mapping[str, Family]) -> dict:
        reports, on_all = ({name: one.report() for name, one in some.items()} for some in (scored, of_all))
        trainings = {name: one.facts() for name, one in scored.items()}
        return summarize(self.plan.settings, reports, trainings, self.encoder.facts(), on_all)


def _scored(families: Mapping[str, Family]) -> dict[str, Family]:
    return {name: one for name, one in families.items() if one.is_scored()}


def list_stages(plan: Plan, families: Sequence[str], known: Sequence[str]) -> list[Stage]:
    """Return what there is to do, in order: work on `families`, and show the `known` ones where they are scored."""
    encoder = EncoderTraining(plan)
    shown = {family: Family(plan, family, plan.settings["recipe"], encoder) for family in known}
    of_all = {
        family: AllGroups(plan, family, one.recipe_name, encoder) for family, one in shown.items() if one.knows_groups
    }
    stages = [Stage("prepare the dataset", plan.is_prepared, plan.prepare), *encoder.stages()]
    for family in (family for family in known if family in families):
        stages += shown[family].stages()
        stages += of_all[family].stages() if family in of_all else []
    return [*stages, Publication(plan, shown, of_all, families, encoder).stage]
