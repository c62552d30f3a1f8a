"""What the codes of a generator do to the heart that it draws: rank correlations with what a doctor would measure.

InfoGAN's codes are learnt without labels (https://huggingface.co/papers/1606.03657); whether one of them follows the
thickness of the wall, the size of a cavity or nothing but the brightness is for measurement to say.
"""

import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from hcm_hf.data.cohort import PHASES
from hcm_hf.data.preprocessing import FIELD_OF_VIEW
from hcm_hf.evaluation.encoder import Instrument, load_encoder
from hcm_hf.evaluation.report import Rows
from hcm_hf.evaluation.tables import cell, markdown_table
from hcm_hf.evaluation.typed import plain
from hcm_hf.generation.images import image_generator
from hcm_hf.metrics.anatomy import LEFT, MYOCARDIUM, chamber_areas, wall_thickness
from hcm_hf.metrics.bootstrap import Number, resample
from hcm_hf.pipelines.auto import HCMPipeline, find_pipeline, hash_model
from hcm_hf.utils.arguments import at_least
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import require_empty, write_text
from hcm_hf.version import __version__


CODES_FILE = "codes.json"
RESAMPLES = 1000  # of the images
LEAST = 20  # images that count; of fewer an interval would be too sure of itself
_BATCH_SIZE = 16


def examine_codes(
    model: str | Path, encoder: str | Path, output_dir: str | Path, num_images: int = 1000, seed: int = 0
) -> Rows:
    """Generate images with codes drawn as in training, and correlate the codes with measurements of them.

    The images are those of `generate_images` with this seed.

    Args:
        model: folder or repository of an InfoGAN or its run.
        encoder: folder of an encoder, see scripts/train_encoder.py.
        output_dir: a new or empty folder, for `codes.json` and `codes.md`.
        num_images: to be generated.
        seed: of latents and resamples.

    Returns:
        By code, "categorical" or "continuous 1" and so on, and by measurement of `measure_slices` the correlation of
        `rank_correlation`.

    Raises:
        InputError: on bad arguments, or if the model has no codes.
    """
    output_dir = Path(output_dir)
    at_least("num_images", num_images, LEAST)
    at_least("seed", seed, 0)
    folder = find_pipeline(model)
    pipeline = HCMPipeline.from_pretrained(folder)
    if not any(pipeline.num_codes):
        raise InputError(f"model {model} has no codes; name an InfoGAN.")
    network = pipeline.network
    segmenter = load_encoder(encoder).segmenter
    size, own = network.config.sample_size, segmenter.network.config.sample_size
    if own != size:
        raise InputError(f"encoder {encoder} is for images of {own} px, those of model {model} have {size}.")
    require_empty(output_dir, "output_dir")
    pipeline.set_progress_bar_config(disable=True)
    latents = network.sample_latents(num_images, [image_generator(seed, index) for index in range(num_images)])
    batches = tqdm(latents.split(_BATCH_SIZE), unit="batch")
    images = np.concatenate([pipeline(latents=part, output_type="np").images[..., 0] for part in batches])
    measured = measure_slices(images, segmenter)
    _, category, continuous = (part.cpu().numpy() for part in network.split_latents(latents))
    found = {"categorical": correlate_categories(category.argmax(1), measured, seed)}
    for code, values in enumerate(continuous.T):
        found[f"continuous {code + 1}"] = {
            name: rank_correlation(values, measurement, seed) for name, measurement in measured.items()
        }
    about = {"model_hash": hash_model(folder), "encoder": segmenter.hash, "n_generated": num_images}
    about |= {"seed": seed, "hcm_hf_version": __version__, "codes": found}
    write_text(output_dir / CODES_FILE, json.dumps(plain(about), indent=2, allow_nan=False) + "\n")
    write_text(output_dir / "codes.md", render_codes(about))
    return found


def render_codes(record: dict) -> str:
    """The correlations of `codes.json` as a table in Markdown."""
    codes = record["codes"]
    columns = list(codes["categorical"])
    lines = [[name, *(cell(row[column], "correlation") for column in columns)] for name, row in codes.items()]
    below = (
        f"Spearman's rank correlation of each code with a measurement, in [-1, 1]; in brackets its 95 % interval over "
        f"the images. Of {record['n_generated']} images of model {record['model_hash']}, seed {record['seed']}, by "
        f"segmenter {record['encoder']}; hcm_hf {record['hcm_hf_version']}. Names in _ed are of the slices that the "
        "segmenter takes for end diastole, where it finds the structure. The categorical code's values are put in the "
        "order of their means over one half of the images and correlated in the other: chance alone gives 0 on "
        "average, and what there is comes out too low rather than too high, as the order is uncertain, which the "
        "interval does not see."
    )
    return f"# What the codes do\n\n{markdown_table(['code', *columns], lines)}\n\n{below}\n"


def measure_slices(images: np.ndarray, segmenter: Instrument) -> dict[str, np.ndarray]:
    """What can be measured in slices.

    Args:
        images: floats (N, H, W) in [0, 1].
        segmenter: to segment them.

    Returns:
        Each (N,), not a number where it cannot be measured: `wall_thickness_ed` in mm, `myocardium_area_ed` and
        `lv_area_ed` in mm^2, of slices that the segmenter takes for end diastole and where it finds the structure;
        `end_diastole`, 1 or 0; `position` from base, 0, to apex, 1; `brightness` in [0, 1].
    """
    predicted = segmenter.predict(images)
    spacing = FIELD_OF_VIEW / images.shape[-1]
    walls, areas = wall_thickness(predicted.masks, spacing), chamber_areas(predicted.masks, spacing)
    end_diastole = predicted.phases == PHASES.index("ED")
    areas[(areas == 0) | ~end_diastole[:, None]] = np.nan
    return {
        "wall_thickness_ed": np.where(end_diastole, walls, np.nan),
        "myocardium_area_ed": areas[:, MYOCARDIUM - 1],
        "lv_area_ed": areas[:, LEFT - 1],
        "end_diastole": end_diastole.astype(float),
        "position": predicted.positions.astype(float),
        "brightness": images.mean((1, 2)).astype(float),
    }


def rank_correlation(values: np.ndarray, measurement: np.ndarray, seed: int = 0) -> Number:
    """Spearman's rank correlation, in [-1, 1], with its 95 % interval by bootstrap over the images.

    Args:
        values: of a code, (N,).
        measurement: (N,); where it is not a number an image does not count.
        seed: of the resamples.

    Returns:
        The correlation; unknown where fewer than `LEAST` images count or one side is constant.
    """
    known = np.isfinite(measurement)
    values, measurement = values[known], measurement[known]
    value, counts = _spearman(values, measurement), {"protocol": "measured", "n_generated": len(values)}
    if np.isnan(value):
        return Number.unknown(**counts)
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    resampled = resample(lambda rows: _spearman(values[rows], measurement[rows]), np.arange(len(values)), draws)
    return Number.estimate(value, resampled, (-1.0, 1.0), **counts)


def correlate_categories(categories: np.ndarray, measured: dict[str, np.ndarray], seed: int = 0) -> dict[str, Number]:
    """The same by measurement for a code without an order, which one half of the images gives and the other tests.

    Args:
        categories: whole numbers (N,).
        measured: by name, (N,).
        seed: of the halves and resamples.
    """
    first = np.zeros(len(categories), bool)
    first[np.random.default_rng(seed).permutation(len(categories))[::2]] = True
    found = {}
    for name, measurement in measured.items():
        known, ordered = first & np.isfinite(measurement), np.full(len(categories), np.nan)
        for category in np.unique(categories[known]):
            ordered[categories == category] = measurement[known & (categories == category)].mean()
        kept = ~first & np.isfinite(ordered)
        found[name] = rank_correlation(ordered[kept], measurement[kept], seed)
    return found


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < LEAST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second).statistic)
