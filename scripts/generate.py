"""python scripts/generate.py --model runs/dcgan --output_dir images/dcgan"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("generate")
