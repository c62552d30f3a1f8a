"""What InfoGAN's codes do to the heart: rank correlations with wall thickness, areas, position and brightness.

python scripts/examine_codes.py --model runs/infogan --encoder runs/encoder --output_dir reports/infogan-codes
"""

from pathlib import Path

import hcm_hf
from hcm_hf.cli import run


def main(model: str, encoder: Path, output_dir: Path, num_images: int = 1000, seed: int = 0) -> None:
    """What InfoGAN's codes do to the heart: rank correlations with wall thickness, areas, position and brightness.

    Args:
        model: folder or repository (user/name) of an InfoGAN or its run.
        encoder: folder of the encoder that measures.
        output_dir: a new or empty folder, gets codes.json and codes.md.
        num_images: images to measure.
        seed: of latents and resamples.
    """
    hcm_hf.examine_codes(model, encoder, output_dir, num_images, seed)
    print(f"table: {output_dir / 'codes.md'}")


if __name__ == "__main__":
    run(main)
