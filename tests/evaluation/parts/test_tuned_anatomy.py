"""Does the tuned model show the disease that it is asked for? Trained here, on the synthetic cohort."""

from dataclasses import replace

import numpy as np
import torch
from tiny import resized

from hcm_hf.data import phantom
from hcm_hf.data.dataset import prepare_dataset
from hcm_hf.metrics.anatomy import wall_thickness
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES


PIXEL = 4.0  # mm at 32 px


def test_hcm_prompts_give_thicker_walls_than_healthy_ones(tmp_path, monkeypatch):
    """By 3 mm at least, in end diastole, measured in the masks that come with the images."""
    phantom.write_cohort(tmp_path / "cohort", num_patients_per_group=8, groups=("HCM", "NOR"))
    prepare_dataset(tmp_path / "cohort", tmp_path / "dataset", resolution=32)
    family = FAMILIES["ddpm"]
    smaller = {"unet": {"block_out_channels": (16, 32), "num_attention_levels": 1, "patch_size": 2}}
    recipe = resized(family.recipes["tuned"], smaller)
    recipe = replace(recipe, losses=recipe.losses | {"max_snr": 5.0})
    monkeypatch.setitem(FAMILIES, "ddpm", replace(family, recipes={"tuned": recipe}))
    run = train(
        TrainingConfig(
            family="ddpm",
            recipe="tuned",
            dataset=str(tmp_path / "dataset"),
            output_dir=str(tmp_path / "run"),
            groups=("HCM", "NOR"),
            num_epochs=60,
            train_batch_size=12,
            learning_rate=3e-3,
            ema_decay=0.98,
            checkpointing_epochs=1000,
            sample_epochs=1000,
        )
    )
    pipeline = HCMPipeline.from_pretrained(run / "last")
    pipeline.set_progress_bar_config(disable=True)
    walls = {}
    for group in ("HCM", "NOR"):
        output = pipeline(
            48,
            torch.Generator().manual_seed(0),
            num_inference_steps=10,
            conditions={"group": group, "phase": "ED"},
            guidance_scale=1.5,
            output_type="np",
        )
        thickness = wall_thickness(output.masks, PIXEL)
        assert np.isfinite(thickness).mean() > 0.6
        walls[group] = np.nanmean(thickness)
    assert walls["HCM"] >= walls["NOR"] + 3, walls
