import pytest
import torch
from tiny import build_tiny

from hcm_hf.evaluation.report import Source
from hcm_hf.evaluation.scoring import measure_speed
from hcm_hf.utils.errors import InputError


def test_speed_is_measured_in_the_precision_of_the_images(tmp_path):
    pipeline = build_tiny("vae").pipeline()
    seen = []
    decode = pipeline.network.decode
    pipeline.network.decode = lambda *inputs: seen.append(torch.is_autocast_enabled("cpu")) or decode(*inputs)
    for precision in ("bf16", None):
        seen.clear()
        speed = measure_speed(pipeline, Source(mixed_precision=precision))
        assert speed.mixed_precision == (precision or "no") and set(seen) == {precision == "bf16"}


def test_speed_is_the_median_of_calls_like_the_one_that_warms_up(monkeypatch):
    pipeline = build_tiny("vae").pipeline()
    sizes, clock = [], iter([0, 9, 10, 14, 20, 21, 30, 35, 40, 42, 50, 53])  # seconds: 9, and then 4 1 5 2 3
    decode = pipeline.network.decode
    pipeline.network.decode = lambda latents, labels: sizes.append(len(latents)) or decode(latents, labels)
    monkeypatch.setattr("hcm_hf.evaluation.scoring.time.perf_counter", lambda: next(clock))
    speed = measure_speed(pipeline, Source(), batch_size=4)
    assert sizes == [4] * 6 and speed.batch_size == 4 and speed.timed_calls == 5
    assert (speed.low, speed.seconds_per_1000_images, speed.high) == (250, 750, 1250)
    assert speed.device == "cpu" and speed.threads == 1 and speed.device_name
    told = speed.sentence()
    assert told.startswith("750 [250, 1,250] s per 1,000 images (in brackets the fastest and the slowest), 1 network")
    assert f"the median of 5 batches of 4 on cpu ({speed.device_name}), 1 thread, fp32." in told


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"calls": 0}])
def test_a_speed_of_nothing_is_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is 0; it must be at least 1"):
        measure_speed(build_tiny("vae").pipeline(), Source(), **wrong)
