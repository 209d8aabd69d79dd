"""A stage's use of its machine is sampled while it runs, and no longer."""

import time

from echosyn.tracking.usage import sample, sampling


def test_a_sample_is_of_this_process_and_machine():
    values = sample()
    assert 0 <= values["system/cpu_utilization_percentage"] <= 100
    used, own = (values[f"system/{of}_memory_usage_megabytes"] for of in ("system", "process"))
    assert 5 < own < used


def test_samples_are_taken_until_the_block_ends():
    kept = []
    start = time.time_ns() // 1_000_000 - 5_000
    with sampling(kept.append, start, every=0.02):
        while len(kept) < 3:
            time.sleep(0.01)
    count = len(kept)
    time.sleep(0.06)
    assert len(kept) == count
    (name, value, at, step), *_ = kept[0]
    assert name.startswith("system/")
    assert value >= 0
    assert at >= start
    assert step >= 5  # seconds since the run began


def test_a_short_stage_has_none():
    kept = []
    with sampling(kept.append, 0):
        pass
    assert kept == []
