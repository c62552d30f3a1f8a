"""python scripts/draw_pairs.py --models runs/ddpm-tuned --dataset data/acdc-64 --output_file pairs.png"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("draw_pairs")
