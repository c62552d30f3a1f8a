"""python scripts/examine_walls.py --model runs/acgan --encoder runs/encoder --output_dir walls"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("examine_walls")
