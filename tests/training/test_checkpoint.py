import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import build_tiny

from hcm_hf.training.checkpoint import STATE_FILE, Progress, TrainingState
from hcm_hf.training.ema import AveragedWeights
from hcm_hf.utils.errors import InputError
from hcm_hf.utils.files import write_sums


def state(seed):
    torch.manual_seed(seed)
    objective = build_tiny("dcgan")
    optimizers = {name: torch.optim.Adam(child.parameters()) for name, child in objective.named_children()}
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    average = AveragedWeights(objective.generator, 0.9)
    return TrainingState(objective, average, optimizers, None, Progress(seed, seed, float(seed), float(seed)))


def test_state_comes_back_as_it_was(tmp_path):
    before, after = state(seed=1), state(seed=2)
    before.save(tmp_path / "last")
    after.load(tmp_path / "last")
    for one, other in [
        (before.objective.state_dict(), after.objective.state_dict()),
        (before.average.weights, after.average.weights),
    ]:
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    for name, optimizer in before.optimizers.items():
        restored = after.optimizers[name].state_dict()
        for index, values in optimizer.state_dict()["state"].items():
            assert all(torch.equal(values[key], restored["state"][index][key]) for key in values)
    assert after.progress == before.progress


def test_damaged_state_is_named(tmp_path):
    before = state(seed=1)
    before.save(tmp_path / "last")
    path = tmp_path / "last" / STATE_FILE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=f"{STATE_FILE} is damaged or of another model"):
        before.load(tmp_path / "last")


@pytest.mark.parametrize(
    "metadata",
    [
        *({}, {"progress": "{", "scaler": "null"}, {"progress": "[]", "scaler": "null"}),
        {"progress": '{"step": 1, "moon": 2}', "scaler": "null"},
    ],
)
def test_a_state_that_does_not_say_where_it_stands_is_named(tmp_path, metadata):
    before = state(seed=1)
    before.save(tmp_path / "last")
    path = tmp_path / "last" / STATE_FILE
    save_file(load_file(path), path, metadata)
    with pytest.raises(InputError, match=f"{STATE_FILE} is damaged or of another model"):
        before.load(tmp_path / "last")


def test_a_state_with_one_bit_flipped_is_not_gone_on_from(tmp_path):
    before = state(seed=1)
    before.save(tmp_path / "last")
    write_sums(tmp_path / "last")
    path = tmp_path / "last" / STATE_FILE
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{STATE_FILE} has changed since it was written"):
        before.load(tmp_path / "last")
