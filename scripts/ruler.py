"""python scripts/ruler.py --dataset data/acdc-64 --encoder runs/encoder --output_dir ruler"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("ruler")
