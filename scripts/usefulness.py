"""python scripts/usefulness.py --dataset data/acdc-64 --output_dir usefulness"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("usefulness")
