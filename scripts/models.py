"""python scripts/models.py pretrained"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("models")
