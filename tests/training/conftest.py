import pytest
from runs import small_config
from tiny import shrink

from hcm_hf.training import curves
from hcm_hf.training.loop import train
from hcm_hf.training.recipes import FAMILIES
from hcm_hf.utils.figures import new_figure


@pytest.fixture(scope="module")
def shrunk():
    """Every network at its tiny size, validated on a few images; the loss curve, slower than the steps, is empty."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        patch.setattr(curves, "plot_losses", lambda training, validation: new_figure(1, 1))
        yield


@pytest.fixture
def config(shrunk, dataset_dir, tmp_path):
    return small_config(dataset_dir, tmp_path / "run")


@pytest.fixture(scope="module")
def teachers(shrunk, dataset_dir, tmp_path_factory):
    """Diffusion models that can teach, trained for an epoch, by recipe."""
    folder = tmp_path_factory.mktemp("taught")
    taught = {recipe.taught_by for recipe in FAMILIES["ddpm"].recipes.values() if recipe.taught_by}
    return {
        recipe: str(train(small_config(dataset_dir, folder / recipe, family="ddpm", recipe=recipe, num_epochs=1)))
        for recipe in sorted(taught)
    }
