"""python scripts/methods.py --model runs/dcgan --report reports/dcgan --output_dir methods/dcgan"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("methods")
