"""python scripts/contrast_groups.py --output_dir pairs"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("contrast_groups")
