"""python scripts/overtrain.py --dataset data/acdc-64 --output_dir overtrained"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("overtrain")
