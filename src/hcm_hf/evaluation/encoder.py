"""The encoder of the evaluation, which is two networks: what they predict for slices, and how accurate they are.

The feature encoder gives distances of distributions. Its training is short: a long one makes the features of training
patients differ from those of others. The segmenter gives every number of anatomy. Its training is long.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hcm_hf.data.cohort import STRUCTURES
from hcm_hf.data.identity import Identities, read_identities, shared_patients
from hcm_hf.evaluation.images import RealSlices, find_levels
from hcm_hf.metrics.anatomy import dice
from hcm_hf.metrics.bootstrap import Number, bootstrap_draws, mean_over_pairs, resample
from hcm_hf.metrics.ranking import roc_auc
from hcm_hf.models import SliceEncoder
from hcm_hf.pipelines.saved import load_network
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import check_sums, explained, read_json
from hcm_hf.utils.hub import download, first_line, parse_repository
from hcm_hf.utils.names import CONFIG_FILE, INSTRUMENT_FOLDERS
from hcm_hf.utils.shipped import find_shipped


_BATCH_SIZE = 64
_WEIGHTS = "diffusion_pytorch_model.safetensors"


class Predictions(NamedTuple):
    """A network's predictions for N slices."""

    features: np.ndarray  # float32 (N, D)
    masks: np.ndarray  # uint8 (N, H, W), the indices of `STRUCTURES`
    group_log_probabilities: np.ndarray  # float32 (N, groups), by the index in `group_names`
    phases: np.ndarray  # (N,), the index in `PHASES`
    positions: np.ndarray  # float32 (N,), 0 for the first slice of a volume and 1 for its last, more or less
    group_names: tuple[str, ...]  # that the network knows

    @property
    def levels(self) -> np.ndarray:
        """Phase and third of the heart as one number, (N,)."""
        return find_levels(self.phases, self.positions)

    def log_odds(self, groups: Sequence[str]) -> np.ndarray:
        """Of some groups against the others, (N,)."""
        chosen = np.isin(self.group_names, list(groups))
        logs = self.group_log_probabilities.astype(np.float64)
        return np.logaddexp.reduce(logs[:, chosen], axis=1) - np.logaddexp.reduce(logs[:, ~chosen], axis=1)


@dataclass(frozen=True)
class Instrument:
    """A trained `SliceEncoder`; numbers of different ones are never compared.

    Attributes:
        network: the network.
        version: of the package that trained it.
        hash: the first 16 digits of SHA-256 over its configuration and weights.
        train_patients: the patients it was trained on, by name.
        device: where it is.
    """

    network: SliceEncoder
    version: str
    hash: str
    train_patients: Identities
    device: str | torch.device = "cpu"

    @property
    def group_names(self) -> tuple[str, ...]:
        """The groups that it tells apart."""
        return tuple(self.network.config.groups)

    def knows(self, *slices: RealSlices) -> bool:
        """Whether it tells the groups of all these slices apart."""
        return all(set(one.groups) <= set(self.group_names) for one in slices)

    @torch.no_grad()
    def predict(self, images: np.ndarray) -> Predictions:
        """Predict features, masks, groups, phases and positions of images, floats (N, H, W) in [0, 1]."""
        batches = []
        for start in range(0, len(images), _BATCH_SIZE):
            batch = torch.from_numpy(images[start : start + _BATCH_SIZE, None]).float().to(self.device)
            output = self.network(2 * batch - 1)
            parts = (
                output.features,
                output.mask_logits.argmax(1).byte(),
                output.group_logits.log_softmax(1),
                output.phase_logits.argmax(1),
                output.positions,
            )
            batches.append([part.cpu().numpy() for part in parts])
        features, masks, groups, phases, positions = (np.concatenate(part) for part in zip(*batches, strict=True))
        return Predictions(features, masks, groups, phases, positions, self.group_names)


@dataclass(frozen=True)
class Encoder:
    """Both networks of a folder of `train_encoder`.

    Attributes:
        features: whose features distances are taken in.
        segmenter: whose segmentations, phases, groups and positions are used.
        source: the folder they came from.
    """

    features: Instrument
    segmenter: Instrument
    source: str


def load_encoder(folder: str | Path, device: str | torch.device = "cpu") -> Encoder:
    """Load the feature encoder and the segmenter that `scripts/train_encoder.py` left in a folder, or trained ones.

    Args:
        folder: the folder; or a trained encoder that comes with this package, "hcm-encoder-64"; or a repository of the
            Hub, `user/name`.
        device: where to put them.

    Raises:
        InputError: if the folder or one of the two is missing, damaged or something else.
    """
    place = _find(folder)
    features, segmenter = (_load_instrument(place, name, device) for name in INSTRUMENT_FOLDERS)
    return Encoder(features, segmenter, str(folder))


def load_segmenter(folder: str | Path, device: str | torch.device = "cpu") -> Instrument:
    """Load the segmenter alone; takes and raises what `load_encoder` does."""
    return _load_instrument(_find(folder), INSTRUMENT_FOLDERS[1], device)


def hash_encoder(folder: str | Path) -> tuple[str, str]:
    """Return the hashes of the feature encoder and of the segmenter in a folder, without building them.

    Args:
        folder: as in `load_encoder`.

    Raises:
        InputError: if one of the two is missing. That their files are whole is checked by `load_encoder`.
    """
    place = _find(folder)
    features, segmenter = (_hash(_find_instrument(place, name)) for name in INSTRUMENT_FOLDERS)
    return features, segmenter


def _find(folder: str | Path) -> Path:
    """Where an encoder is, downloaded if it is in a repository."""
    if (repository := parse_repository(folder)) is None:
        return find_shipped(folder, "encoder")
    return download(repository[0], [f"{name}/*" for name in INSTRUMENT_FOLDERS], revision=repository[1])


def _find_instrument(folder: Path, name: str) -> Path:
    """Where one of the networks of an encoder is."""
    runs = (folder / name, folder / name / "best")
    found = next((path for path in runs if (path / "config.json").is_file() and (path / CONFIG_FILE).is_file()), None)
    if found is None:
        raise InputError(
            f"encoder {folder} holds no encoder: it has no network in '{name}'; train both with "
            "scripts/train_encoder.py."
        )
    return found


def _hash(found: Path) -> str:
    """The first 16 digits of SHA-256 over the configuration and the weights in a folder."""
    whole = hashlib.sha256()
    for path in (found / "config.json", found / _WEIGHTS):
        with explained(path):
            whole.update(path.read_bytes())
    return whole.hexdigest()[:16]


def _load_instrument(folder: Path, name: str, device: str | torch.device) -> Instrument:
    found = _find_instrument(folder, name)
    check_sums(found)
    try:
        written, kind = read_json(found / CONFIG_FILE), read_json(found / "config.json")["_class_name"]
        if kind == SliceEncoder.__name__:
            network = load_network(SliceEncoder, found / _WEIGHTS, _segment_once, torch.float32).to(device)
        digest = _hash(found)
        patients, version = written["train_patients"], written["version"]
    except Exception as error:  # an odd option ends in any kind of error where the network is built
        raise InputError(f"The encoder in {found} is damaged; train it again ({first_line(error)}).") from error
    if kind != SliceEncoder.__name__:
        raise InputError(f"encoder {folder} holds another model; train one with scripts/train_encoder.py.")
    if not isinstance(version, str) or not all(isinstance(name, str) for name in network.config.groups):
        raise InputError(f"The encoder in {found} is damaged; train it again.")
    known = read_identities(patients, f"encoder {folder}")
    return Instrument(network, version, digest, known, device)


def _segment_once(network: SliceEncoder) -> torch.Tensor:
    size = network.config.sample_size
    return network(torch.zeros(1, 1, size, size)).mask_logits


def check_encoder(encoder: Encoder, training: RealSlices, heldout: RealSlices) -> None:
    """Refuse an encoder that must not be used for these slices.

    Patients are known by their volumes, whatever they are called and however they were prepared.

    Raises:
        InputError: if it has seen a held-out patient, or was trained on other data or another image size.
    """
    size = heldout.images.shape[2]
    for instrument in (encoder.features, encoder.segmenter):
        own = instrument.network.config.sample_size
        if own != size:
            raise InputError(
                f"encoder {encoder.source} was trained on slices of {own} px, the dataset's have {size}; train "
                "another."
            )
        if shared := shared_patients(heldout.identities, instrument.train_patients):
            raise InputError(
                f"encoder {encoder.source} was trained on patient {shared[0]}, who is held out here; train it on "
                "the training patients of this dataset."
            )
        known = shared_patients(training.identities, instrument.train_patients)
        if unknown := [name for name in training.identities if name not in known]:
            raise InputError(
                f"encoder {encoder.source} was trained on other data: it has not seen {unknown[0]}, a training "
                "patient here; train it on this dataset."
            )


def encoder_quality(
    instrument: Instrument, heldout: RealSlices, groups: Sequence[str], seed: int = 0
) -> dict[str, Number]:
    """How well one of the networks does on the patients held out, of all groups; bootstrap over these patients.

    Args:
        instrument: the network.
        heldout: slices of all groups.
        groups: the groups to distinguish from the others.
        seed: of the resamples.

    Returns:
        Numbers: `dice_rv`, `dice_myocardium` and `dice_lv` (of each patient's volume in each phase, then the mean),
        `auc_slice` and `auc_patient` (area under the ROC curve of groups against the rest; of a patient by the mean
        log odds of his slices; both are missing where it does not know the slices' groups), `phase_accuracy` and
        `position_error` (mean absolute, as a part of the heart).
    """
    predicted = instrument.predict(heldout.images)
    codes, draws = bootstrap_draws(heldout.patients, np.random.default_rng((seed, 4)))
    counts = {"protocol": "encoder", "n_real": len(codes), "n_patients": draws.shape[1], "encoder": instrument.hash}
    numbers = {}
    segmented = heldout.masks.min((1, 2)) >= 0
    volumes = np.where(segmented, codes * 2 + heldout.phases, -1)
    for label, name in enumerate(("rv", "myocardium", "lv"), 1):
        values, owners = [], []
        for volume in np.unique(volumes[segmented]):
            rows = volumes == volume
            values.append(dice(predicted.masks[rows] == label, heldout.masks[rows] == label))
            owners.append(volume // 2)
        known = np.isfinite(values)
        means = mean_over_pairs(np.array(values)[known], np.array(owners, int)[known], draws)
        numbers[f"dice_{name}"] = Number.estimate(*means, (0, 1), **counts, structure=STRUCTURES[label])
    if instrument.knows(heldout):
        numbers |= _diagnosis(predicted.log_odds(groups), np.isin(heldout.groups, list(groups)), codes, draws, counts)
    right, error = predicted.phases == heldout.phases, np.abs(predicted.positions - heldout.positions)
    numbers["phase_accuracy"] = Number.estimate(*mean_over_pairs(right, codes, draws), (0, 1), **counts)
    numbers["position_error"] = Number.estimate(*mean_over_pairs(error, codes, draws), (0, np.inf), **counts)
    return numbers


def _diagnosis(
    odds: np.ndarray, ours: np.ndarray, codes: np.ndarray, draws: np.ndarray, counts: dict[str, Any]
) -> dict[str, Number]:
    """The areas under the ROC curve of `encoder_quality`.

    Args:
        odds: log odds of the groups to distinguish, (N,).
        ours: which slices are of these groups, bool (N,).
        codes: of the patients, (N,).
        draws: of these.
        counts: what the numbers say of the slices.
    """
    of_patient = [np.flatnonzero(codes == patient) for patient in range(draws.shape[1])]
    patient_odds, patient_ours = (np.array([x[rows].mean() for rows in of_patient]) for x in (odds, ours))
    by_slice = Number.estimate(
        roc_auc(odds, ours), resample(lambda rows: roc_auc(odds[rows], ours[rows]), codes, draws), (0, 1), **counts
    )
    resampled = resample(
        lambda chosen: roc_auc(patient_odds[chosen], patient_ours[chosen]), np.arange(len(of_patient)), draws
    )
    by_patient = Number.estimate(roc_auc(patient_odds, patient_ours), resampled, (0, 1), **counts)
    return {"auc_slice": by_slice, "auc_patient": by_patient}
