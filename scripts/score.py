"""python scripts/score.py --images images/dcgan --dataset data/acdc-64 --output_dir reports/dcgan"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("score")
