from dataclasses import replace

import pytest
from tiny import tiny_families

from hcm_hf.study.usefulness import cells, generators
from hcm_hf.training import recipes


def tiny_segmenter():
    """The network of the cells, a few channels wide."""
    family = recipes.INSTRUMENTS["segmenter"]
    recipe = family.recipes["default"]
    sizes = {"encoder": recipe.sizes["encoder"] | {"block_out_channels": (4, 8)}}
    return replace(family, recipes={"default": replace(recipe, sizes=sizes, train_batch_size=8)})


@pytest.fixture(scope="module")
def tiny():
    """Tiny generators and networks, and epochs of a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.INSTRUMENTS, "segmenter", tiny_segmenter())
        for name, family in tiny_families().items():
            patch.setitem(recipes.FAMILIES, name, family)
        patch.setattr(cells, "LEAST_EPOCH", 16)
        patch.setattr(generators, "LEAST_EPOCH", 16)
        yield
