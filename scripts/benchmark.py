"""python scripts/benchmark.py --acdc ACDC/database"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("benchmark")
