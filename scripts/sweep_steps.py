"""python scripts/sweep_steps.py --model runs/ddpm --dataset data/acdc-64 --output_dir steps"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("sweep_steps")
