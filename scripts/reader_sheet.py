"""python scripts/reader_sheet.py --images images/dcgan --dataset data/acdc-64 --output_dir reader"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("reader_sheet")
