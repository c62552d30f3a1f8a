"""python scripts/examine_codes.py --model runs/infogan --encoder runs/encoder --output_dir codes"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("examine_codes")
