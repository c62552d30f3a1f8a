"""python scripts/push.py --model runs/dcgan --report reports/dcgan --repo_id user/hcm-dcgan --private"""

from hcm_hf.cli import main


if __name__ == "__main__":
    main("push")
