"""python scripts/verify.py pretrained"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("verify")
