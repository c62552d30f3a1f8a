"""python scripts/pack.py --model runs/dcgan --output_dir pretrained/hcm-dcgan-64"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("pack")
