"""python scripts/write_phantom.py --output_dir data/phantom"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("write_phantom")
