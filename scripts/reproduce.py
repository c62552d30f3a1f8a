"""python scripts/reproduce.py --acdc ACDC/database/training"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("reproduce")
