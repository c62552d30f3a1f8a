"""Open a prepared dataset: a folder, a repository of the Hub, or the synthetic cohort."""

from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
import pyarrow
from filelock import FileLock
from huggingface_hub import constants

from hcm_hf.data import phantom
from hcm_hf.data.parquet import PATTERN, holds_parquet, read_splits
from hcm_hf.data.preparation import REPORT_FILE, build_dataset, prepare_dataset
from hcm_hf.data.schema import check_preparation, check_splits
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import check_name, check_sums, read_json
from hcm_hf.utils.hub import download, parse_repository
from hcm_hf.version import __version__


__all__ = ["build_dataset", "load_dataset", "prepare_dataset", "read_preparation"]


def load_dataset(dataset: str | Path | None, resolution: int | None = None) -> datasets.DatasetDict:
    """Open a prepared dataset, or the synthetic cohort, which is drawn and cached on first use.

    Args:
        dataset: a folder that `prepare_dataset` or `generate_images` wrote, a Hub repository (`user/name[@revision]`),
            or None for the synthetic cohort.
        resolution: required size in pixels; by default any. The synthetic cohort comes in any size, by default 64.

    Raises:
        InputError: if the folder is missing, is no prepared dataset, or has another resolution.
    """
    if dataset is None:
        dataset = _synthetic_dataset(resolution or 64)
    check_name(dataset, "dataset")
    repository = parse_repository(dataset)
    if repository is None and not Path(dataset).is_dir():
        raise InputError(f"dataset {dataset} does not exist; make it with scripts/prepare_dataset.py.")
    if repository is None:
        check_sums(Path(dataset))
    try:
        folder = Path(dataset) if repository is None else _snapshot(*repository)
        if repository is None and not holds_parquet(folder):
            splits = datasets.load_from_disk(folder)
        else:
            splits = read_splits(folder, repository[0] if repository else str(dataset))
        splits = check_splits(splits, f"dataset {dataset}")
    except InputError:
        raise
    except (OSError, ValueError, TypeError, pyarrow.ArrowException, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"dataset {dataset} is not a dataset; make it with scripts/prepare_dataset.py.") from error
    size = splits["train"][0]["image"].width
    if resolution is not None and size != resolution:
        raise InputError(f"dataset {dataset} has images of {size} px, not {resolution}; leave resolution out.")
    return splits


def read_preparation(dataset: str | Path | None) -> dict:
    """Return the preparation report of a dataset of `load_dataset`; empty if it was prepared elsewhere."""
    if dataset is None:
        return {"source": "synthetic"}
    repository = parse_repository(dataset)
    path = (Path(dataset) if repository is None else _snapshot(*repository)) / REPORT_FILE
    if not path.is_file():
        return {}
    return check_preparation(read_json(path), str(path))


def _snapshot(repo_id: str, revision: str | None) -> Path:
    return download(repo_id, [constants.REPOCARD_NAME, REPORT_FILE, PATTERN], "dataset", revision)


def _synthetic_dataset(resolution: int) -> Path:
    """Return the prepared synthetic cohort; the first job that needs it makes it in the cache, the others wait."""
    name, cache = f"synthetic-{phantom.PHANTOM_VERSION}-{__version__}-{resolution}", Path(constants.HF_HOME, "hcm_hf")
    try:
        cache = cache.expanduser()
        if (cache / name).is_dir():
            return cache / name
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / f".{name}.lock")
        lock.acquire()
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no home"
        raise InputError(
            f"The synthetic cohort cannot be kept in {cache} ({reason}); set HF_HOME to a folder that you may write, "
            "or name a prepared dataset."
        ) from error
    with lock, TemporaryDirectory() as folder:
        if not (cache / name).is_dir():  # unless another job has just made it
            phantom.write_cohort(Path(folder) / "cohort", num_proc=1)
            prepare_dataset(Path(folder) / "cohort", cache / name, resolution)
    return cache / name
