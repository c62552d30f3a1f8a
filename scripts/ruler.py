"""What the evaluation says of images that are known: copies, damaged copies, the mean image, other diseases.

python scripts/ruler.py --dataset data/acdc-64 --encoder runs/encoder --output_dir ruler
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run


def main(
    output_dir: Path, encoder: Path, dataset: str | None = None, split: str = "test", group: str = "HCM", seed: int = 0
) -> None:
    """What the evaluation says of images that are known: copies, damaged copies, the mean image, other diseases.

    Args:
        output_dir: gets ruler.md and ruler.json.
        encoder: folder of the encoder trained on the dataset.
        dataset: folder of a prepared dataset; by default the synthetic cohort.
        split: the held-out split.
        group: the group whose generator they stand for.
        seed: of the damage and of the evaluation.
    """
    hcm_hf.write_ruler(output_dir, encoder, dataset, split, group, seed)
    print(f"table: {output_dir / 'ruler.md'}")


if __name__ == "__main__":
    run(main)
