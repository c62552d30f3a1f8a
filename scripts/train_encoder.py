"""accelerate launch scripts/train_encoder.py --dataset data/acdc-64 --output_dir runs/encoder"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("train_encoder")
