from dataclasses import replace

import torch

from hcm_hf.data.slices import Slices


def test_what_is_found_for_parts_of_a_batch_is_known_for_all_of_it_in_its_order(splits):
    """In each of three processes, by what stacks their parts; alone a batch is whole."""
    slices = Slices(splits["train"], ("HCM",))
    alone = slices.batch(range(6))
    assert torch.equal(alone.whole(alone.images), alone.images)
    parts = [slices.batch(range(index, 6, 3), index, 3) for index in range(3)]
    for name in ("images", "positions"):
        stacked = torch.cat([getattr(part, name) for part in parts])
        for part in parts:
            shared = replace(part, gather=lambda values, stacked=stacked: stacked)
            assert torch.equal(shared.to("cpu").whole(getattr(part, name)), getattr(alone, name))
    errors = replace(parts[1], gather=lambda values: torch.cat([values] * 3))
    assert errors.whole(torch.ones(1)).shape == (3,)
