"""The stages of a reproduction: each knows whether it is done, how to do it and about how long that takes here.

What is done is read from the files that the stages leave, so that a reproduction goes on after an interruption.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hcm_hf.data.dataset import REPORT_FILE as PREPARATION_FILE
from hcm_hf.data.dataset import load_dataset, prepare_dataset
from hcm_hf.data.phantom import write_cohort
from hcm_hf.data.slices import Slices
from hcm_hf.evaluation.encoder import load_encoder
from hcm_hf.evaluation.kept import PARTS_FOLDER
from hcm_hf.evaluation.report import REPORT_FILE, write_report
from hcm_hf.evaluation.scoring import score
from hcm_hf.generation.images import MANIFEST_FILE, SETTINGS_FILE, find_images, generate_images
from hcm_hf.pipelines.auto import hash_model, prepare_sampling
from hcm_hf.study.plan import ENVIRONMENT_FILE, Plan, read_json
from hcm_hf.study.results import draw_figures, render_tables, summarize
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.objectives.study import Objective
from hcm_hf.training.recipes import find_family
from hcm_hf.training.run import LOSS_FIGURE, METRICS_FILE
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import write_bytes, write_text
from hcm_hf.utils.names import CONFIG_FILE
from hcm_hf.version import __version__


TABLE_FILE = "table1.json"
BATCH_SIZE = 32  # images per call of a pipeline


class Stage:
    """One step of the way.

    Attributes:
        name: for the reader; no two stages share one.
        shared: whether all processes take part; otherwise the main one acts alone.
    """

    name: str
    shared = False

    def done(self) -> bool:
        """Whether its files are there, whole, and of what the stages before it have left."""
        raise NotImplementedError(f"{type(self).__name__} does not define done.")

    def run(self) -> None:
        """Do it, going on from what is there."""
        raise NotImplementedError(f"{type(self).__name__} does not define run.")

    def estimate(self) -> float | None:
        """About how many seconds are left, as measured here; None if there is nothing to tell from."""
        return None


class Preparation(Stage):
    """Patients to slices."""

    name = "prepare the dataset"

    def __init__(self, plan: Plan):
        self.plan = plan
        self._slices: dict[tuple[str, ...], tuple[Slices, Slices]] = {}

    def done(self) -> bool:
        """Who the patients are is checked before the first stage."""
        prepared, settings = read_json(self.plan.dataset / PREPARATION_FILE), self.plan.settings
        return bool(prepared) and all(prepared[name] == settings[name] for name in ("source", "resolution"))

    def run(self) -> None:
        """Prepare ACDC, or else draw the synthetic cohort first."""
        resolution = self.plan.settings["resolution"]
        if self.plan.acdc:
            prepare_dataset(self.plan.acdc, self.plan.dataset, resolution)
            return
        with TemporaryDirectory() as folder:
            write_cohort(Path(folder) / "cohort", num_proc=1)
            prepare_dataset(Path(folder) / "cohort", self.plan.dataset, resolution)

    def slices(self, groups: Sequence[str]) -> tuple[Slices, Slices]:
        """The training and validation slices of some groups, decoded once."""
        groups = tuple(groups)
        if groups not in self._slices:
            splits = load_dataset(self.plan.dataset)
            self._slices[groups] = Slices(splits["train"], groups), Slices(splits["validation"], groups)
        return self._slices[groups]


class Training(Stage):
    """One run of the loop: a family or the encoder.

    Raises:
        InputError: if the family or its recipe is unknown, or it cannot be built for this image size.
    """

    shared = True

    def __init__(self, preparation: Preparation, family: str, recipe: str):
        self.name = f"train {family}"
        self.preparation, self.plan = preparation, preparation.plan
        self.family, self.recipe_name = family, recipe
        self.recipe = find_family(family, recipe)[1]
        self.folder = self.plan.work_dir / "runs" / family
        self.num_epochs = min(self.recipe.num_epochs, self.plan.num_epochs or self.recipe.num_epochs)
        self.parameters = {
            name: sum(parameter.numel() for parameter in network.parameters())
            for name, network in self.build().named_children()
        }

    def build(self) -> Objective:
        """Fresh networks."""
        resolution = self.plan.settings["resolution"]
        try:
            return self.recipe.build(resolution, **self.recipe.objective)
        except ValueError as error:
            raise InputError(f"{self.family} cannot be built for images of {resolution} px: {error}") from error

    def done(self) -> bool:
        """The precision that it was trained in does not matter, nor do more epochs than are asked for."""
        written = read_json(self.folder / CONFIG_FILE)
        if not written.get("finished") or not self.preparation.done():
            return False
        asked = {"family": self.family, "recipe": self.recipe_name, "seed": self.plan.settings["seed"]}
        slices = self.preparation.slices(self.recipe.groups)
        asked["dataset_fingerprint"] = "".join(one.fingerprint() for one in slices)
        return written | asked == written and written["num_epochs"] >= self.num_epochs

    def run(self) -> None:
        """Begin or go on."""
        config = TrainingConfig(
            family=self.family,
            recipe=self.recipe_name,
            dataset=str(self.plan.dataset),
            output_dir=str(self.folder),
            num_epochs=self.num_epochs,
            mixed_precision=self.plan.arguments["mixed_precision"],
            seed=self.plan.settings["seed"],
        )
        train(config)

    def facts(self) -> dict:
        """What a reader of the results should know of a finished run."""
        written = read_json(self.folder / CONFIG_FILE)
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

    def estimate(self) -> float | None:
        """To the last epoch, at the run's own pace or else at that of a few steps; early stopping is not foreseen."""
        if not self.preparation.done():
            return None
        batch_size = self.recipe.train_batch_size * self.plan.accelerator.num_processes
        train_slices, _ = self.preparation.slices(self.recipe.groups)
        epoch_steps = -(-len(train_slices) // batch_size)
        progress = read_json(self.folder / "last" / CONFIG_FILE).get("progress")
        if progress:
            left = max(self.num_epochs * epoch_steps - progress["step"], 0)
            return left * progress["seconds"] / progress["step"]
        step, validation = self._pace
        return self.num_epochs * (epoch_steps * step + validation)

    @cached_property
    def _pace(self) -> tuple[float, float]:
        """Seconds that a step and a validation take, measured on networks that are thrown away."""
        accelerator = self.plan.accelerator
        train_slices, validation_slices = self.preparation.slices(self.recipe.groups)
        objective = self.build().to(accelerator.device)
        optimizers = {name: torch.optim.Adam(net.parameters(), lr=1e-6) for name, net in objective.named_children()}
        batch = train_slices.batch(slice(self.recipe.train_batch_size)).to(accelerator.device)
        held_out = validation_slices.batch(slice(None)).to(accelerator.device)

        def step() -> None:
            with accelerator.autocast():
                for network, loss in objective.losses(batch):
                    optimizers[network].zero_grad()
                    loss.backward()
                    optimizers[network].step()
            loss.item()  # waits for the device

        step()  # the first one allocates
        return measure(step, 2), measure(torch.no_grad()(lambda: objective.validation_loss(held_out).item()))


class Generation(Stage):
    """Images of one family.

    Raises:
        InputError: if it cannot be sampled as told.
    """

    shared = True

    def __init__(self, training: Training):
        self.name = f"generate {training.family}"
        self.training, self.plan = training, training.plan
        self.folder = self.plan.work_dir / "images" / training.family
        pipeline = training.build().pipeline()
        takes_steps = "scheduler" in pipeline.components
        names = ("scheduler", "num_inference_steps") if takes_steps else ()
        asked = {name: self.plan.settings[name] for name in names}
        self.sampling = {name: value for name, value in asked.items() if value is not None}  # else the model's own
        prepare_sampling(pipeline, **self.sampling)  # what cannot be is found now, not after the training

    def done(self) -> bool:
        """All images are there, and the model of the finished run made them."""
        settings = read_json(self.folder / SETTINGS_FILE)
        if not settings or settings | self.sampling != settings:
            return False
        if not self.training.done() or self._superseded(settings):
            return False
        manifest = self.folder / MANIFEST_FILE
        lines = manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []
        return len(lines) >= self.plan.num_images and all(
            (self.folder / json.loads(line)["file"]).is_file() for line in lines
        )

    def run(self) -> None:
        """Make what is missing; images of a model that is no longer there give way."""
        settings, accelerator = read_json(self.folder / SETTINGS_FILE), self.plan.accelerator
        superseded = settings and (self._superseded(settings) or settings["version"] != __version__)
        accelerator.wait_for_everyone()
        if superseded and accelerator.is_main_process:
            shutil.rmtree(self.folder)
        accelerator.wait_for_everyone()
        seed = self.plan.settings["seed"]
        generate_images(
            self.training.folder, self.folder, self.plan.num_images, BATCH_SIZE, seed=seed, **self.sampling
        )

    def _superseded(self, settings: dict) -> bool:
        return settings["model_hash"] != hash_model(self.training.folder)

    def estimate(self) -> float:
        """Of the images that are missing."""
        missing = self.plan.num_images - len(find_images(self.folder))
        return max(missing, 0) * self._pace / self.plan.accelerator.num_processes

    @cached_property
    def _pace(self) -> float:
        """Seconds per image, from a batch of fresh networks and two denoising steps."""
        pipeline = self.training.build().pipeline().to(self.plan.accelerator.device)
        pipeline.set_progress_bar_config(disable=True)
        arguments, _ = prepare_sampling(pipeline, **self.sampling)
        repeated = 1.0
        if "num_inference_steps" in arguments:
            timed = min(arguments["num_inference_steps"], 2)
            repeated = arguments["num_inference_steps"] / timed
            arguments["num_inference_steps"] = timed

        def sample() -> None:
            pipeline(batch_size=BATCH_SIZE, output_type="np", **arguments)

        sample()  # the first one allocates
        return measure(sample) * repeated / BATCH_SIZE


class Scoring(Stage):
    """The report on one family's images."""

    def __init__(self, generation: Generation, encoder: Training):
        self.family = generation.training.family
        self.name = f"score {self.family}"
        self.generation, self.encoder, self.plan = generation, encoder, generation.plan
        self.folder = self.plan.work_dir / "reports" / self.family

    def done(self) -> bool:
        """The report is of these images, by this encoder and this version."""
        report = read_json(self.folder / REPORT_FILE)
        if not report or not report["encoder"] or not (self.generation.done() and self.encoder.done()):
            return False
        images = self.generation.folder
        return (
            report["generator"]["model_hash"] == read_json(images / SETTINGS_FILE)["model_hash"]
            and report["n_generated"] == len((images / MANIFEST_FILE).read_text(encoding="utf-8").splitlines())
            and report["encoder"]["hash"] == load_encoder(self.encoder.folder).hash
            and (report["hcm_hf_version"], report["seed"]) == (__version__, self.plan.settings["seed"])
            and "paper_compat_artefact" in report
        )

    def run(self) -> None:
        """Score; a report that is not of these images gives way, an interrupted one goes on."""
        if (self.folder / REPORT_FILE).is_file() or not (self.folder / PARTS_FOLDER).is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)
        score(
            self.folder,
            images=self.generation.folder,
            model=self.generation.training.folder,
            dataset=self.plan.dataset,
            encoder=self.encoder.folder,
            paper_compat=True,
            seed=self.plan.settings["seed"],
        )

    def estimate(self) -> float | None:
        """As long as the longest so far."""
        return max((taken for name, taken in self.plan.seconds().items() if name.startswith("score ")), default=None)

    def report(self) -> dict:
        """The report without this machine's paths."""
        report = read_json(self.folder / REPORT_FILE)
        report["generator"]["model"] = f"runs/{self.family}"
        report["dataset"]["name"] = self.plan.settings["source"]
        report["encoder"]["source"] = f"runs/{self.encoder.family}"
        return report


class Publication(Stage):
    """Tables, figures and reports of all families that are scored, whether or not they were asked for this time."""

    name = "write the results"

    def __init__(self, scorings: Sequence[Scoring], asked: Sequence[str], encoder: Training):
        self.scorings, self.asked, self.encoder = scorings, asked, encoder
        self.plan = encoder.plan

    def done(self) -> bool:
        """They say what the reports say, and no file has gone."""
        output_dir = self.plan.output_dir
        table = read_json(output_dir / TABLE_FILE)
        scored = self._scored()
        if not table or not {one.family for one in scored}.issuperset(self.asked):
            return False
        files = table.pop("files")
        return (
            all((output_dir / file).is_file() for file in files)
            and table == self._summary(scored)
            and read_json(output_dir / ENVIRONMENT_FILE) == self._circumstances()
            and all(read_json(output_dir / one.family / REPORT_FILE) == one.report() for one in scored)
        )

    def run(self) -> None:
        """Write everything anew, the table last."""
        plan, output_dir, scored = self.plan, self.plan.output_dir, self._scored()
        for one in scored:
            folder = output_dir / one.family
            for picture in one.folder.glob("*.png"):
                write_bytes(folder / picture.name, picture.read_bytes())
            write_report(one.report(), folder)
            metrics = one.generation.training.folder / METRICS_FILE
            write_bytes(folder / METRICS_FILE, metrics.read_bytes())
        for name in (METRICS_FILE, LOSS_FIGURE):
            write_bytes(output_dir / self.encoder.family / name, (self.encoder.folder / name).read_bytes())
        families = [one.family for one in scored]
        seed = plan.settings["seed"]
        draw_figures(plan.work_dir / "runs", plan.work_dir / "images", output_dir, plan.dataset, families, seed=seed)
        write_text(output_dir / ENVIRONMENT_FILE, json.dumps(self._circumstances(), indent=2) + "\n")
        summary = self._summary(scored)
        write_text(output_dir / "table1.md", render_tables(summary))
        files = sorted(path.relative_to(output_dir).as_posix() for path in output_dir.rglob("*") if path.is_file())
        write_text(output_dir / TABLE_FILE, json.dumps(summary | {"files": files}, indent=2, allow_nan=False) + "\n")

    def _circumstances(self) -> dict:
        """What was done where, but for this stage, which is not done before it has written that."""
        calls = self.plan.calls()
        for call in calls:
            call["seconds"].pop(self.name, None)
        return {"calls": calls}

    def _scored(self) -> list[Scoring]:
        return [one for one in self.scorings if one.done()]

    def _summary(self, scored: Sequence[Scoring]) -> dict:
        reports = {one.family: one.report() for one in scored}
        trainings = {one.family: one.generation.training.facts() for one in scored}
        return summarize(self.plan.settings, reports, trainings, self.encoder.facts())


def measure(function: Callable[[], object], times: int = 1) -> float:
    """Seconds that a call takes, the mean of some calls."""
    started = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - started) / times
