"""python scripts/planted.py --dataset data/acdc-64 --encoder runs/encoder --output_dir planted"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("planted")
