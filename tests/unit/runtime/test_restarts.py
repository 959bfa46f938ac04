import pytest

from runtime.restarts import RestartPolicy

POLICY = RestartPolicy()


@pytest.mark.parametrize(
    ("deaths_s", "delay_s"),
    [
        ([100.0], 0.5),
        ([100.0, 101.0], 1.0),
        ([100.0, 101.0, 102.0], 2.0),
        ([100.0, 101.0, 102.0, 103.0], 4.0),
    ],
)
def test_the_delay_doubles_with_every_death(deaths_s, delay_s):
    assert POLICY.delay_s(deaths_s) == delay_s


def test_the_fifth_death_in_ten_minutes_is_the_last():
    assert POLICY.delay_s([0.0, 1.0, 2.0, 3.0, 600.0]) is None
    assert POLICY.delay_s([0.0, 1.0, 2.0, 3.0, 600.5]) is not None


def test_the_delay_never_passes_its_maximum():
    deaths_s = [200.0 * number for number in range(20)]  # never five in ten minutes
    assert POLICY.delay_s(deaths_s) == 30.0


def test_a_life_longer_than_the_window_starts_the_delay_anew():
    assert POLICY.delay_s([0.0, 1.0, 2.0, 700.0]) == 0.5
    assert POLICY.delay_s([0.0, 1.0, 2.0, 700.0, 701.0]) == 1.0
