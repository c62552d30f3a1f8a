"""python scripts/draw_tradeoff.py --reports paper docs/results/acdc-64-paper --output_file tradeoff.png"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("draw_tradeoff")
