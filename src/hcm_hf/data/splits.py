"""Deal out patients to training, validation and test."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from hcm_hf.data.cohort import Patient
from hcm_hf.data.schema import SPLITS
from hcm_hf.utils.errors import InputError


_SHARES = {"test": 0.2, "validation": 0.1}  # of a group's patients, where the source has no split


def check_group_sizes(patients: Sequence[Patient]) -> None:
    """Raise an `InputError` for a group with one patient beside others."""
    for group, count in sorted(Counter(patient.group for patient in patients).items()):
        if count == 1 and len(patients) > 1:
            name = next(patient.name for patient in patients if patient.group == group)
            raise InputError(
                f"Group {group} has one patient, {name}, who cannot be in training and in test; add others, or leave "
                "the group out of `groups`."
            )


def split_patients(
    patients: Sequence[Patient], seed: int, duplicates: Sequence[set[str]] = ()
) -> dict[str, list[str]]:
    """Return the names of the patients of each split; sets of `duplicates` stay together.

    Each cohort is split by itself. Its patients of a group are ordered by a hash of the seed and their name, so that
    neither the order of files nor the presence of other groups or cohorts moves a patient. Duplicates of several
    cohorts are dealt out with the first.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    held_out: set[tuple[str, str]] = set()  # cohort and split, where the source says who is held out
    for split, half in (("test", "testing"), ("validation", "validation")):
        splits[split] += [patient.name for patient in patients if patient.half == half]
        held_out |= {(patient.cohort, split) for patient in patients if patient.half == half}
    units: dict[str, list[Patient]] = {}  # patients who stay together
    for patient in sorted(patients, key=lambda patient: patient.name):
        if patient.half in ("", "training"):
            unit = min((min(names) for names in duplicates if patient.name in names), default=patient.name)
            units.setdefault(unit, []).append(patient)
    room = {}
    for key in {_key(members) for members in units.values()}:
        count = sum(len(members) for members in units.values() if _key(members) == key)
        room[key] = {  # a group of three or more is in every split
            split: 0 if (key[0], split) in held_out else max(round(share * count), min(1, count // 3))
            for split, share in _SHARES.items()
        } | {"train": count}
    for unit in sorted(units, key=lambda name: _place(seed, units[name][0])):
        places, names = room[_key(units[unit])], [patient.name for patient in units[unit]]
        split = next(split for split in places if len(names) <= places[split])
        places[split] -= len(names)
        splits[split] += names
    return {split: sorted(names) for split, names in splits.items()}


def _key(members: Sequence[Patient]) -> tuple[str, str]:
    """What patients who stay together are dealt out with: cohort and group of the first."""
    return members[0].cohort, members[0].group


def _place(seed: int, patient: Patient) -> bytes:
    name = patient.name.removeprefix(f"{patient.cohort}:")  # as in the patient's own cohort
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def drop_copies(patients: Sequence[Patient], copies: Sequence[set[str]]) -> tuple[list[Patient], list[str], list[str]]:
    """Drop training patients who are also held out.

    Returns:
        The patients who stay, a sentence for each who does not, and a note on each set of copies that stays.
    """
    halves = {patient.name: patient.half for patient in patients}
    dropped, left_out, notes = set(), [], []
    for names in copies:
        half = next((half for half in ("testing", "validation") if half in {halves[name] for name in names}), None)
        kept = sorted(name for name in names if halves[name] == half)
        others = sorted(names - set(kept))
        if half and others:
            dropped |= set(others)
            left_out += [f"{name}: the same volumes as {kept[0]} of the {half} half" for name in others]
        else:
            notes.append(f"{' and '.join(sorted(names))} hold the same volumes; they are kept in one split")
    return [patient for patient in patients if patient.name not in dropped], left_out, notes
