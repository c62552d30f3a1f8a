"""Train a generator; run the same command again to resume.

accelerate launch scripts/train.py --dataset data/acdc-64 --family dcgan --output_dir runs/dcgan
accelerate launch scripts/train.py --num_epochs 5    # on the synthetic cohort
"""

import os

import hcm_hf
from hcm_hf.cli import run
from hcm_hf.training.config import TrainingConfig


def main(
    config: TrainingConfig,
    push_to_hub: bool = False,
    hub_model_id: str | None = None,
    hub_private_repo: bool = False,
) -> None:
    """Train a generator; run the same command again to resume.

    Args:
        config: what to train.
        push_to_hub: put the best model on the Hub when training is done; log in with `hf auth login` first.
        hub_model_id: the repository, user/name; by default hcm-FAMILY of your account.
        hub_private_repo: make it, if it is new, a private one.
    """
    repo_id, private = hub_model_id or f"hcm-{config.family}", hub_private_repo or None
    pushes = push_to_hub and os.environ.get("RANK", "0") == "0"  # of several processes, one
    if pushes:
        repo_id = hcm_hf.check_repository(repo_id, "model", private)  # what is wrong there shows before the training
    output_dir = hcm_hf.train(config)
    if pushes:
        print(f"on the Hub: {hcm_hf.push_model(output_dir, repo_id, private=private)}")
    print(f"best model: {output_dir / 'best'}\nloss curve: {output_dir / 'losses.png'}")


if __name__ == "__main__":
    run(main)
