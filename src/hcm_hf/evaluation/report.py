"""A report: every number of an evaluation, as JSON and for reading."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hcm_hf.evaluation.definitions import (
    ARTEFACT,
    DEFINITIONS,
    FEW_PATIENTS,
    FIGURES,
    GLANCE,
    LEARNT,
    LEARNT_UNKNOWN,
    LIMITS,
    PROTOCOLS,
    ROWS,
)
from hcm_hf.evaluation.tables import brief, cell, markdown_table, number_table
from hcm_hf.evaluation.typed import plain, read_typed
from hcm_hf.metrics.bootstrap import Number
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import read_json, write_text


REPORT_FILE = "report.json"
Rows = dict[str, dict[str, Number]]  # by row, by the number's name
_WORD = re.compile(r"[\w+.-]{1,64}")


@dataclass(frozen=True)
class Source:
    """What made the images.

    Attributes:
        model: its folder or repository; without a manifest the name of the images' folder.
        model_hash: of its weights.
        version: of the package that generated the images.
        scheduler: of a diffusion model.
        num_inference_steps: its sampling steps.
        guidance_scale: of classifier-free guidance.
        stochastic_floor: of the sampler, where it is not the model's own; so is the next.
        last_sigma: its last noise level.
        mixed_precision: where it was not full.
        classes: the classes asked for.
    """

    model: str | None = None
    model_hash: str | None = None
    version: str | None = None
    scheduler: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    stochastic_floor: float | None = None
    last_sigma: float | None = None
    mixed_precision: str | None = None
    classes: list[str] = field(default_factory=list)

    def settings(self) -> list[str]:
        """How the images were made, for reading."""
        sampling = [f"{self.scheduler}, {self.num_inference_steps} steps"] if self.scheduler else []
        if self.guidance_scale not in (None, 1):
            sampling.append(f"guidance {self.guidance_scale:g}")
        if self.stochastic_floor is not None:
            sampling.append(f"no noise below {self.stochastic_floor:g}")
        if self.last_sigma is not None:
            sampling.append(f"last call at {self.last_sigma:g}")
        return [*(f"class {name}" for name in self.classes), *([", ".join(sampling)] if sampling else [])]


@dataclass(frozen=True)
class Data:
    """The dataset whose slices the images are compared with; `cohort` is the held-out patients' where it was named."""

    name: str
    fingerprint: str
    split: str
    groups: list[str]
    resolution: int
    cohort: str | None = None


@dataclass(frozen=True)
class EncoderInfo:
    """One of the two networks of the encoder, and how well it does on held-out patients."""

    source: str
    version: str
    hash: str
    quality: dict[str, Number]


@dataclass(frozen=True)
class Artefact:
    """What a wrong data range gives."""

    warning: str
    rows: Rows


@dataclass(frozen=True)
class Speed:
    """How long a model takes: the median of several equal calls, after one that is not timed.

    Early reports timed a single call, after one for a single image: they have no spread.

    Attributes:
        network_calls: of each image; guidance takes two per sampling step.
        seconds_per_1000_images: by the median call.
        batch_size: images of each call.
        device: where, as torch writes it.
        threads: of the CPU.
        mixed_precision: of the calls; None in early reports, which is full precision.
        low: the same as seconds_per_1000_images by the fastest call.
        high: by the slowest.
        timed_calls: their number.
        device_name: the processor or GPU.
    """

    network_calls: int
    seconds_per_1000_images: float
    batch_size: int
    device: str
    threads: int
    mixed_precision: str | None = None
    low: float | None = None
    high: float | None = None
    timed_calls: int | None = None
    device_name: str | None = None

    def __post_init__(self) -> None:
        ends = self.low, self.high
        known = [end for end in ends if end is not None]
        if len(known) == 1 or any(end < 0 for end in (self.seconds_per_1000_images, *known)):
            raise ValueError(f"a time of {self.seconds_per_1000_images} with the spread {self.low} to {self.high}")

    def seconds(self) -> str:
        """Seconds per 1,000 images with their spread, for reading."""
        value = brief(self.seconds_per_1000_images)
        if self.low is None or self.high is None:
            return value
        return f"{value} [{brief(self.low)}, {brief(self.high)}]"

    def circumstances(self) -> str:
        """What it was measured on."""
        calls = f"the median of {self.timed_calls} batches" if self.timed_calls else "one batch"
        named = f" ({self.device_name})" if self.device_name else ""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        precision = precision_name(self.mixed_precision)
        return f"{calls} of {self.batch_size} on {self.device}{named}, {threads}, {precision}"

    def sentence(self) -> str:
        """All of it, for reading."""
        spread = "" if self.low is None else " (in brackets the fastest and the slowest)"
        return (
            f"{self.seconds()} s per 1,000 images{spread}, {self.network_calls} network call(s) each, by "
            f"{self.circumstances()}."
        )


@dataclass
class Report:
    """What an evaluation found; the JSON file has the same names.

    Attributes:
        hcm_hf_version: of the package that wrote it.
        generator: what made the images.
        dataset: what they are compared with.
        seed: of all random choices.
        real_per_image: real slices that an image is compared with at random.
        n_generated: number of images.
        n_reference: slices that an image gets to match.
        seen_groups: groups whose training slices the generator may copy.
        n_seen: number of these slices, and of their patients in the next.
        n_train: training slices of the groups compared with, likewise.
        n_heldout: held-out slices of these groups, likewise.
        encoder: the feature encoder; None where there was none.
        left_out: a reason by each part, and by images or patients, that was not assessed.
        parts: the names of numbers by part.
        rows: the numbers: `generated` for the images, the other rows to compare with.
        seen_groups_assumed: whether the generator's groups are not known.
        definitions: what the numbers mean.
        asked_groups: groups that generated segmentations were asked to show.
        figures: names of files by part.
        paper_compat_artefact: SSIM with a wrong data range.
        speed: of the model.
        training_precision: mixed precision that the model was trained in, "no" for full; None where it is not known.
        segmenter: None without an encoder, and in reports of before, whose feature encoder segmented too.
    """

    hcm_hf_version: str
    generator: Source
    dataset: Data
    seed: int
    real_per_image: int
    n_generated: int
    n_reference: int
    seen_groups: list[str]
    n_seen: int
    n_seen_patients: int
    n_train: int
    n_train_patients: int
    n_heldout: int
    n_heldout_patients: int
    encoder: EncoderInfo | None
    left_out: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    seen_groups_assumed: bool | None = None
    definitions: dict[str, str] = field(default_factory=lambda: DEFINITIONS)
    asked_groups: list[str] | None = None
    figures: dict[str, list[str]] | None = None
    paper_compat_artefact: Artefact | None = None
    speed: Speed | None = None
    training_precision: str | None = None
    segmenter: EncoderInfo | None = None

    @classmethod
    def from_json(cls, value: object) -> "Report":
        """Read what `to_json` gives; keys that are not known are passed over.

        Raises:
            ValueError: if something is missing, of another type, or not a finite number.
        """
        report = read_typed(cls, value)
        words = [*report.rows, *report.dataset.groups, *report.seen_groups, *(report.asked_groups or ())]
        words += [report.training_precision or "", report.dataset.cohort or ""]
        words += [word for row in report.rows.values() for name, one in row.items() for word in (name, one.protocol)]
        counts = [count for name, count in vars(report).items() if name.startswith("n_")]
        if (
            "generated" not in report.rows
            or min(counts) < 0
            or not all(_WORD.fullmatch(word) for word in words if word)
        ):
            raise ValueError("no report")
        if any(not set(names) <= set(report.rows["generated"]) for names in report.parts.values()):
            raise ValueError("a part without its numbers")
        return report

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Read a report from its `report.json`, or from the folder of it.

        Raises:
            InputError: if it is missing, damaged, or no report; names the file.
        """
        path = Path(path) / REPORT_FILE if Path(path).is_dir() else Path(path)
        value = read_json(path)
        try:
            return cls.from_json(value)
        except ValueError as error:
            raise InputError(f"{path} is no report of scripts/score.py, or damaged; write one anew.") from error

    def to_json(self) -> dict[str, Any]:
        """As `report.json` holds it."""
        return plain(self)

    def save(self, output_dir: str | Path) -> None:
        """Write `report.json` and `report.md` into a folder."""
        write_text(Path(output_dir) / REPORT_FILE, json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")
        write_text(Path(output_dir) / "report.md", self.to_markdown())

    def renamed(self, model: str, dataset: str, encoder: str | None) -> "Report":
        """The same for readers elsewhere: without the paths of this machine, and without the names of figures.

        Args:
            model: where the model is to be found.
            dataset: likewise.
            encoder: likewise; not used where there is none.
        """
        return replace(
            self,
            generator=replace(self.generator, model=model),
            dataset=replace(self.dataset, name=dataset),
            encoder=self.encoder and replace(self.encoder, source=encoder or ""),
            segmenter=self.segmenter and replace(self.segmenter, source=encoder or ""),
            figures=None,
        )

    def to_markdown(self) -> str:
        """The report for reading: what counts first, then a section for each part."""
        data, made = self.dataset, self.generator.settings()
        if self.generator.mixed_precision:
            made.append(precision_name(self.generator.mixed_precision))
        blocks = [
            f"# {self.generator.model or 'images'} against {data.name or 'the dataset'}, split {data.split}, "
            f"{', '.join(data.groups)}{f', cohort {data.cohort}' if data.cohort else ''}",
            f"{self.n_generated} generated images of {data.resolution} px{''.join(f' ({text})' for text in made)}; "
            f"{self.n_train} training slices of {self.n_train_patients} patients; {self.n_heldout} held-out slices of "
            f"{self.n_heldout_patients} patients. In brackets: 95 % interval over the reference's patients, or what "
            "Definitions says of it.",
            *self._warnings(),
            "## At a glance",
            number_table(self.rows, [name for name in GLANCE if name in self.rows["generated"]]),
            "What is offered as *real* and as *mean_image* differs from part to part; each section says it under "
            "Rows.",
        ]
        if self.training_precision:
            trained, made_in = map(precision_name, (self.training_precision, self.generator.mixed_precision))
            blocks.append(f"Trained in {trained}; the images were generated in {made_in}.")
        if self.speed:
            blocks.append(self.speed.sentence())
        blocks += [f"Left out: {reason}" for reason in self.left_out.values()]
        for part, names in self.parts.items():
            blocks += self._section(part, names)
        instruments = {"feature encoder": self.encoder, "segmenter": self.segmenter}
        used = {name: one for name, one in instruments.items() if one is not None}
        if used:
            blocks.append("## Encoder")
            blocks += [
                f"The {name}: {one.source}, hash {one.hash}, trained by hcm_hf {one.version}."
                for name, one in used.items()
            ]
            quality = {name: one.quality for name, one in used.items()}
            blocks += [
                "On the held-out patients of all groups:",
                number_table(quality, list(next(iter(quality.values())))),
            ]
        if self.paper_compat_artefact:
            rows = self.paper_compat_artefact.rows
            blocks += ["## paper_compat", f"**{ARTEFACT}**"]
            blocks += self._by_protocol(rows, list(rows["generated"]), "artefact: ")
        blocks += ["## Definitions", "\n".join(f"- {name}: {text}." for name, text in self.definitions.items())]
        blocks.append(f"hcm_hf {self.hcm_hf_version}, dataset {data.fingerprint}, seed {self.seed}.")
        return "\n\n".join(blocks) + "\n"

    def _warnings(self) -> Iterator[str]:
        if self.n_heldout_patients < FEW_PATIENTS:
            yield (
                f"**Warning: only {self.n_heldout_patients} held-out patients; patients, not slices, are the sample "
                "size, so neither the numbers nor their intervals can be relied on.**"
            )
        shown, groups = self.asked_groups or self.generator.classes, self.dataset.groups
        if not shown and not self.seen_groups_assumed or "any" in shown:
            shown = self.seen_groups
        if shown and set(shown) != set(groups):
            yield f"**Warning: images of class {', '.join(shown)} are compared with slices of {', '.join(groups)}.**"

    def _section(self, part: str, names: list[str]) -> Iterator[str]:
        yield f"## {part.capitalize()}"
        said = {
            "seen": " ".join(self.seen_groups),
            "learnt": LEARNT_UNKNOWN if self.seen_groups_assumed else LEARNT,
            "asked": ", ".join(self.asked_groups or ()) or "any",
        }
        yield f"Rows: {ROWS[part].format_map(vars(self) | said)}."
        if part == "similarity":
            yield from (*self._by_protocol(self.rows, names), LIMITS)
        else:
            yield number_table(self.rows, names)
        for figure in (self.figures or {}).get(part, ()):
            caption = next(text for pattern, text in FIGURES[part].items() if fnmatch(figure, pattern))
            yield f"Figure {figure}: {caption}."

    def _by_protocol(self, rows: Rows, names: list[str], prefix: str = "") -> Iterator[str]:
        for protocol, sentence in PROTOCOLS.items():
            chosen = [name for name in names if rows["generated"][name].protocol == protocol]
            lines = [
                [label, *(cell(row.get(name), name) for name in chosen)]
                for label, row in rows.items()
                if any(name in row for name in chosen)
            ]
            if chosen:
                yield f"**{protocol}**: {sentence.format_map(vars(self))}."
                yield markdown_table(["row", *(prefix + name for name in chosen)], lines)


def precision_name(mixed_precision: str | None) -> str:
    """Accelerate's name of a mixed precision for reading, in which none is fp32."""
    return "fp32" if mixed_precision in (None, "no") else mixed_precision
