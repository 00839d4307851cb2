"""What a number of pictures takes, from measured rates."""

import pytest

from sklearn_mm.scaling import Rates, capacity

RATES = {
    "decode": 300,
    "network": 50,
    "project": 2000,
    "scores": 8e7,
    "picture_bytes": 1e5,
    "stored_bytes": 5e3,
    "n_components": 1024,
}


def steps_of(n_pictures, hours=24.0, memory_bytes=64e9, **rates):
    return {
        step.name: step
        for step in capacity(n_pictures, Rates(**{**RATES, **rates}), hours=hours, memory_bytes=memory_bytes).steps
    }


def test_hours_and_bytes_are_the_rates_carried_on():
    steps = steps_of(1_000_000)
    assert steps["decode and embed"].hours == pytest.approx(1e6 / 50 / 3600)
    assert steps["decode and embed"].n_bytes == 1e11
    assert steps["store the embedding"].n_bytes == 5e9
    assert steps["project to the joint space"].hours == pytest.approx(1e6 / 2000 / 3600)
    assert steps["1,000 searches, exact"].n_bytes == 1e6 * 4096
    assert steps["1,000 searches, exact"].hours == pytest.approx(1e9 / 8e7 / 3600)


def test_all_but_the_sample_grows_with_the_pictures():
    few, many = steps_of(10**7), steps_of(10**9)
    assert many["statistics of a sample"].hours == few["statistics of a sample"].hours
    for name in set(few) - {"statistics of a sample", "1,000 searches, nearly so"}:
        assert many[name].n_bytes == 100 * few[name].n_bytes
        if few[name].hours:
            assert many[name].hours == pytest.approx(100 * few[name].hours)


def test_the_slower_of_decoding_and_network_decides():
    assert steps_of(1000)["decode and embed"].driver == "the network"
    slow = steps_of(1000, decode=10)["decode and embed"]
    assert slow.driver == "reading and decoding"
    assert slow.hours == pytest.approx(1000 / 10 / 3600)


def test_machines_are_those_that_end_in_time_and_hold_the_vectors():
    steps = steps_of(10**9)
    assert steps["decode and embed"].machines == 232  # 5,556 hours of one, in 24
    assert steps_of(10**9, hours=240)["decode and embed"].machines == 24
    assert steps["1,000 searches, exact"].machines == 64  # of 64 GB, for 4.1 TB
    assert steps_of(10**9, memory_bytes=1e12)["1,000 searches, exact"].machines == 5


def test_one_machine_needs_no_cluster():
    assert steps_of(10**6)["decode and embed"].engine == "embed_shards, local"
    assert steps_of(10**8)["decode and embed"].engine == "embed_shards, ray"


def test_the_table_has_a_line_for_each_step_and_no_exponents():
    text = str(capacity(10**9, Rates(**RATES)))
    assert len(text.splitlines()) == 2 + 6
    assert "e+" not in text
    assert "5,600" in text and "100 TB" in text and "232" in text


@pytest.mark.parametrize("name", RATES)
def test_rates_are_above_zero(name):
    with pytest.raises(ValueError, match=f"{name} must be a number above 0, got 0"):
        Rates(**{**RATES, name: 0})


@pytest.mark.parametrize("wrong", [{"hours": 0}, {"memory_bytes": -1}])
def test_limits_are_above_zero(wrong):
    with pytest.raises(ValueError, match="must be above 0"):
        capacity(10, Rates(**RATES), **wrong)
