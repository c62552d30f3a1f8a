"""Which reader a cohort's files are for."""

from collections.abc import Callable, Mapping
from pathlib import Path

from hcm_hf.data.acdc import find_cohort
from hcm_hf.data.cohort import COLUMNS, Cohort, read_table
from hcm_hf.data.mnms import find_mnms
from hcm_hf.data.mnms2 import find_mnms2
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import explained


# A file that only this layout has, and its reader; the first that is there decides.
READERS: dict[str, Callable[[str | Path], Cohort]] = {
    "*_SA_E[DS].nii*": find_mnms2,
    "*_sa.nii*": find_mnms,
    "Info.cfg": find_cohort,
}


def read_cohort(path: str | Path, mask_values: Mapping[int, int] | None = None) -> Cohort:
    """Read a table, or find the patients of a folder whose layout is known, or of ACDC's `.zip`.

    Args:
        path: of the table, folder or archive.
        mask_values: of a table, as `read_table` takes it; layouts know theirs.

    Raises:
        InputError: if nothing is there, or no reader knows the folder.
    """
    path = Path(path)
    with explained(path):
        if path.is_file():
            return find_cohort(path) if path.suffix.lower() == ".zip" else read_table(path, mask_values)
        if not path.exists():
            raise InputError(f"{path} does not exist; name a cohort's table or folder.")
        for pattern, read in READERS.items():
            if next(path.rglob(pattern), None) is not None:
                return read(path)
    raise InputError(
        f"{path} is in no layout that is known (ACDC, M&Ms, M&Ms-2); write a table of it with the columns "
        f"{', '.join(COLUMNS)}."
    )
