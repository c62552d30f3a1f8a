"""accelerate launch scripts/train.py --dataset data/acdc-64 --family dcgan --output_dir runs/dcgan"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("train")
