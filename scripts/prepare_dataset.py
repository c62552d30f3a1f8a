"""python scripts/prepare_dataset.py --acdc ACDC/database --output_dir data/acdc-64"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("prepare_dataset")
