"""The images that an evaluation compares: real slices of a prepared dataset, and generated ones from a folder."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePath

import datasets
import numpy as np

from hcm_hf.data.cohort import LEVELS, PHASES, STRUCTURES
from hcm_hf.data.identity import Identities
from hcm_hf.data.slices import Slices
from hcm_hf.data.vocabulary import check_groups, is_word
from hcm_hf.evaluation.report import Source
from hcm_hf.evaluation.typed import read_typed
from hcm_hf.generation.images import MANIFEST_FILE, SETTINGS_FILE, find_images
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained
from hcm_hf.utils.pictures import read_picture


MANIFEST_KEYS = ("file", "seed", "class", "model", "version")
MOST_IMAGES = 10_000  # of a folder that are read
THIRDS = len(LEVELS)  # parts of the heart from the first slice to the last


@dataclass(frozen=True)
class RealSlices:
    """Slices of some groups of patients.

    Attributes:
        images: float32 (N, H, W) in [0, 1].
        masks: whole numbers (N, H, W), the indices of `STRUCTURES`; -1 everywhere in a slice without a segmentation.
        patients: (N,).
        groups: (N,), names.
        phases: (N,), the index in `PHASES`; -1 for the frames between.
        positions: (N,) in [0, 1], from the first to the last slice of the volume.
        identities: who each patient is, by name.
    """

    images: np.ndarray
    masks: np.ndarray
    patients: np.ndarray
    groups: np.ndarray
    phases: np.ndarray
    positions: np.ndarray
    identities: Identities

    @property
    def levels(self) -> np.ndarray:
        """Phase and third of the heart as one number, (N,)."""
        return find_levels(self.phases, self.positions)

    def of_groups(self, groups: Sequence[str]) -> "RealSlices":
        """Those of some groups."""
        kept = np.isin(self.groups, list(groups))
        arrays = {name: value[kept] for name, value in vars(self).items() if name != "identities"}
        names = np.unique(arrays["patients"]).tolist()
        identities = {name: self.identities[name] for name in names if name in self.identities}
        return RealSlices(**arrays, identities=identities)

    def at_ends(self) -> "RealSlices":
        """Those at end diastole and end systole."""
        kept = self.phases >= 0
        return replace(self, **{name: value[kept] for name, value in vars(self).items() if name != "identities"})


@dataclass(frozen=True)
class GeneratedPairs:
    """What the slices of a model that makes segmentations were asked to show, in the order of `read_images`.

    Attributes:
        masks: uint8 (N, H, W), the indices of `STRUCTURES`.
        groups: (N,), names; empty where unknown.
        phases: (N,), the index in `PHASES`; -1 where unknown, as in the next.
        thirds: (N,), the index in `LEVELS`.
    """

    masks: np.ndarray
    groups: np.ndarray
    phases: np.ndarray
    thirds: np.ndarray


@dataclass(frozen=True)
class GeneratedImages:
    """Generated images and what is known of them.

    Attributes:
        images: float32 (N, H, W) in [0, 1].
        source: what made them.
        pairs: their segmentations; None where there are none.
        patients: whose each is, (N,), of real slices that are offered as generated; None for those of a model.
    """

    images: np.ndarray
    source: Source = Source()
    pairs: GeneratedPairs | None = None
    patients: np.ndarray | None = None


def find_levels(phases: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Phase and third of the heart as one number; positions outside [0, 1] belong to the outer thirds."""
    return phases * THIRDS + np.clip(np.floor(positions * THIRDS), 0, THIRDS - 1).astype(int)


def read_split(
    dataset: datasets.DatasetDict,
    split: str,
    groups: Sequence[str] | None = None,
    all_frames: bool = False,
    cohort: str | None = None,
) -> RealSlices:
    """Slices of one split.

    Args:
        dataset: a prepared dataset.
        split: the name of the split.
        groups: of the patients; by default all.
        all_frames: whether frames between end diastole and end systole are among them.
        cohort: of the patients; by default all.

    Raises:
        InputError: if there are none.
    """
    if split not in dataset:
        raise InputError(f"The dataset has no split '{split}'; choose among {', '.join(dataset)}.")
    rows = dataset[split] if cohort is None else _of_cohort(dataset[split], split, cohort)
    names = rows.features["group"].names
    check_groups(groups := names if groups is None else groups, names)
    codes = [names.index(group) for group in groups]
    columns = zip(rows["group"], rows["phase"], strict=True)
    if not any(group in codes and phase is not None for group, phase in columns):
        raise InputError(
            f"Split '{split}' has no slices of {', '.join(groups)} in ED or ES; name other groups or another split."
        )
    slices = Slices(rows, groups)
    kept = (slices.phases >= (-1 if all_frames else 0)).numpy()
    return RealSlices(
        images=slices.images.numpy()[kept].astype(np.float32) / 255,
        masks=slices.masks.numpy()[kept],
        patients=np.array(slices.patients)[kept],
        groups=np.array(slices.groups)[slices.class_labels.numpy()[kept]],
        phases=slices.phases.numpy()[kept],
        positions=slices.positions.numpy()[kept],
        identities=slices.identities(),
    )


def _of_cohort(rows: datasets.Dataset, split: str, cohort: str) -> datasets.Dataset:
    """The slices of one cohort's patients."""
    whose = rows["cohort"] if "cohort" in rows.features else [None] * len(rows)
    kept = [index for index, name in enumerate(whose) if name == cohort]
    if not kept:
        known = ", ".join(sorted({name for name in whose if name is not None})) or "none that is named"
        raise InputError(f"Split '{split}' has no slices of the cohort '{cohort}'; its cohorts are {known}.")
    return rows.select(kept)


def fingerprint(*sets: RealSlices) -> str:
    """Of the pixels and patients compared with, so that it does not depend on how the dataset was stored."""
    digest = hashlib.sha256()
    for one in sets:
        digest.update(one.images.tobytes() + "\n".join(one.patients).encode())
    return digest.hexdigest()[:16]


def read_images(folder: str | Path) -> tuple[np.ndarray, Source]:
    """Read generated images: a folder with `manifest.jsonl`, or of PNG files alone. `read_pairs` reads the masks.

    Reads at most 10,000 images: of a larger folder, a fixed random sample.

    Returns:
        float32 (N, H, W) in [0, 1], and what made them.

    Raises:
        InputError: if the folder holds no images, images of several models or sizes, or what cannot be read, or its
            generation has not come to its end.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The folder of images {folder} does not exist.")
    if (folder / MANIFEST_FILE).is_file():
        entries = _read_manifest(folder / MANIFEST_FILE)
    elif (folder / SETTINGS_FILE).is_file():
        raise InputError(f"{folder} lacks its {MANIFEST_FILE}; generate its images to the end, with the same command.")
    else:
        names = find_images(folder)
        model = folder.resolve().name
        entries = [{"file": names[index].name, "model": model} for index in _drawn(len(names))]
    if not entries:
        raise InputError(f"{folder} holds no images; generate some there first.")
    known: dict = {}
    for key in (one.name for one in fields(Source) if one.name != "classes"):
        values = sorted({entry[key] for entry in entries if entry.get(key) is not None}, key=str)
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            raise InputError(f"{folder} holds images of more than one {key} ({listed}); score them apart.")
        if values:
            known[key] = values[0]
    known["classes"] = sorted({str(entry["class"]) for entry in entries if entry.get("class") is not None})
    try:
        source = read_typed(Source, known)
    except ValueError as error:
        raise InputError(f"{folder / MANIFEST_FILE} is damaged ({error}); generate the images again.") from error
    first = _read_png(folder / str(entries[0]["file"]))
    images = np.empty((len(entries), *first.shape), np.float32)  # filled in place: never all of them twice
    for index, entry in enumerate(entries):
        pixels = _read_png(folder / str(entry["file"]))
        if pixels.shape != first.shape:
            raise InputError(f"{folder / entry['file']} differs in size from {entries[0]['file']}; keep one size.")
        images[index] = pixels.astype(np.float32) / 255
    return images, source


def read_pairs(folder: str | Path) -> GeneratedPairs | None:
    """Read the segmentations of generated images, and what the images were to show; None if there are none.

    Args:
        folder: as in `read_images`, which says what is wrong with the images.

    Raises:
        InputError: if the manifest is damaged, or a mask is missing, damaged or of another size than the images.
    """
    folder = Path(folder)
    path = folder / MANIFEST_FILE
    entries = _read_manifest(path) if path.is_file() else []
    if not any("mask" in entry for entry in entries):
        return None
    shape = _read_png(folder / str(entries[0]["file"])).shape
    masks = np.empty((len(entries), *shape), np.uint8)
    for index, entry in enumerate(entries):
        if "mask" not in entry:
            raise InputError(f"{path}, line {index + 1}, has no key 'mask' as others have; generate the images again.")
        mask = _read_png(folder / str(entry["mask"]))
        if mask.shape != shape or mask.max() >= len(STRUCTURES):
            raise InputError(
                f"{folder / str(entry['mask'])} is no mask of {entry['file']} (its size, with labels from 0 to "
                f"{len(STRUCTURES) - 1}); generate the images again."
            )
        masks[index] = mask

    def indices(names: Sequence[str], key: str) -> np.ndarray:
        return np.array([names.index(entry[key]) if entry.get(key) in names else -1 for entry in entries])

    groups = [entry.get("group") for entry in entries]
    names = np.array([group if is_word(group) else "" for group in groups])
    return GeneratedPairs(masks, names, indices(PHASES, "phase"), indices(LEVELS, "level"))


def count_images(folder: str | Path) -> int:
    """How many images a folder of `read_images` holds, also where it reads some of them."""
    path = Path(folder, MANIFEST_FILE)
    if not path.is_file():
        return len(find_images(Path(folder)))
    with explained(path), open(path, encoding="utf-8") as file:
        return sum(1 for _ in file)


def _drawn(count: int) -> np.ndarray:
    """The places of the images that are read, in order."""
    random = np.random.default_rng(0)
    return np.sort(random.choice(count, MOST_IMAGES, replace=False)) if count > MOST_IMAGES else np.arange(count)


def _read_manifest(path: Path) -> list[dict]:
    """The lines of a manifest that are read; they name files of its own folder and hold plain values only."""
    drawn = set(_drawn(count_images(path.parent)).tolist())
    with explained(path), open(path, encoding="utf-8") as file:
        lines = [(number, line) for number, line in enumerate(file, 1) if number - 1 in drawn]
    entries = []
    for number, line in lines:
        try:
            entry = json.loads(line, parse_constant=_refuse)
        except ValueError as error:
            raise InputError(f"{path}, line {number}, is not a JSON object; generate the images again.") from error
        if not isinstance(entry, dict) or any(isinstance(value, (dict, list)) for value in entry.values()):
            raise InputError(f"{path}, line {number}, is not a JSON object; generate the images again.")
        if missing := [key for key in MANIFEST_KEYS if key not in entry]:
            raise InputError(f"{path}, line {number}, has no key '{missing[0]}'; generate the images again.")
        for key in ("file", "mask"):
            name = entry.get(key, "image.png")
            if not isinstance(name, str) or name != PurePath(name).name or "\\" in name or name in ("", ".", ".."):
                raise InputError(f"{path}, line {number}, names the {key} {name}, which is no file of this folder.")
        entries.append(entry)
    return entries


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _read_png(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path} is named in {MANIFEST_FILE} but missing; generate the images again.")
    return read_picture(path, str(path))
