"""What cells may take: how a budget is read, and how predictions grow and learn."""

import math
from typing import Any

import pytest

from benchmarks.budget import Budget, Forecast, parse_seconds
from benchmarks.job import Job
from benchmarks.physical import macs
from benchmarks.subjects import REUSE
from lpips_runtime.errors import UsageError

USUAL = Budget(120.0, 4e9)
SMALL, BATCH, LARGE = (Job("alex", "", side, batch, 1) for side, batch in ((64, 1), (64, 8), (256, 1)))


def _cell(state: str = "measured", ms: float = 10.0) -> Any:
    speed = {"pairs": 8, "pairs_per_second": 8 / ms * 1000}
    return {"state": state, **speed, "first_seconds": 2.0, "peak_bytes": 300_000_000}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", USUAL),
        ("90s", Budget(90, 4e9)),
        ("8GB", Budget(120, 8e9)),
        ("90s,8GB", Budget(90, 8e9)),
        ("512MiB, 1.5s", Budget(1.5, 2**29)),
        ("2min", Budget(120, 4e9)),
        ("0.5min", Budget(30, 4e9)),
        ("0s", Budget(0, 4e9)),
    ],
)
def test_budget_is_a_time_a_size_or_both(text: str, expected: Budget) -> None:
    assert Budget.parse(text, USUAL) == expected


@pytest.mark.parametrize(
    "text", ["nonsense", "90", "s", "-5s", "90s;8GB", "90s,,x", "8G", "0GB", "1e3s", "90 s", "nans"]
)
def test_nonsense_is_no_budget(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--budget .* is neither a time, as 90s, nor a size, as 8GB$"):
        Budget.parse(text, USUAL)


def _passed(*of: tuple[float, float], left: float = math.inf) -> list[str]:
    """Why each of these, of so many seconds and bytes, is not run; the first comes first."""
    predicted: Any = {str(number): dict(zip(("seconds", "bytes"), one, strict=True)) for number, one in enumerate(of)}
    why = Budget(10, 1e9).passed(predicted, list(predicted), left)
    return [why.get(name, "") for name in predicted]


def test_budget_is_passed_by_time_or_by_the_memory_of_all_together() -> None:
    assert _passed((10, 1e9)) == [""]
    assert _passed((10.1, 1)) == ["would pass the budget of 10 s"]
    assert _passed((1, 1.1e9)) == ["would pass the budget of 1000MB"]
    beside = "would pass the budget of 1000MB beside the 500MB of other subjects"
    # What is not run takes nothing from the others.
    assert _passed((1, 0.5e9), (1, 0.6e9), (11, 0.1e9), (1, 0.5e9)) == ["", beside, "would pass the budget of 10 s", ""]


def test_what_is_left_of_the_whole_run_is_shared_too() -> None:
    over = "would pass the 4 s that --within leaves"
    assert _passed((6, 1), (5, 1), (4, 1), left=10) == ["", over, ""]
    assert _passed((1, 1), left=-3) == ["would pass the 0 s that --within leaves"]


@pytest.mark.parametrize(("text", "seconds"), [("9min", 540), (" 1.5s ", 1.5), ("90", None), ("", None), ("2h", None)])
def test_time_is_a_number_with_its_unit(text: str, seconds: float | None) -> None:
    assert parse_seconds(text) == seconds


def test_without_pytorch_a_subject_that_was_never_seen_is_ready_sooner_and_smaller() -> None:
    ours, eager = (Forecast({"float32": 100.0}).predict(name, SMALL, 5) for name in ("ours", "eager"))
    assert ours["bytes"] < eager["bytes"]
    assert ours["seconds"] < eager["seconds"]


def test_of_a_set_each_image_that_is_encoded_is_work() -> None:
    """Six images: 15 pairs of them by the reference are 30 encodings; ours are 6."""
    forecast, job = Forecast({"float32": 100.0}), Job("alex", "", 64, 6, 1)
    for name, encodings in (("reusing", 6), ("lpips", 30)):
        title = REUSE["all pairs", name].title
        forecast.learn(title, job, _cell())
        larger = forecast.predict(title, Job("alex", "", 64, 12, 1), 1)
        now = 12 if name == "reusing" else 132
        assert larger["seconds"] == pytest.approx(2 + 3 * 0.011 * now / encodings)


@pytest.mark.parametrize("learned", [False, True])
def test_predictions_grow_with_work_pixels_and_rounds(learned: bool) -> None:
    forecast = Forecast({"float32": 100.0})
    if learned:
        forecast.learn("ours", SMALL, _cell())
    small, batch, large, longer = (
        forecast.predict("ours", *of) for of in ((SMALL, 5), (BATCH, 5), (LARGE, 5), (SMALL, 50))
    )
    assert small["seconds"] < batch["seconds"] < large["seconds"]
    assert small["bytes"] < batch["bytes"] < large["bytes"]
    assert small["seconds"] < longer["seconds"]
    assert small["bytes"] == longer["bytes"]
    assert forecast.predict("ours", Job("alex", "", 64, 1, 1, height=128), 5)["seconds"] > small["seconds"]


def test_faster_machine_is_predicted_faster() -> None:
    forecasts = [Forecast({"float32": rate}) for rate in (10.0, 1000.0, None)]
    slow, fast, unknown = (forecast.predict("ours", LARGE, 5)["seconds"] for forecast in forecasts)
    assert fast < unknown < slow


def test_what_a_subject_took_says_what_it_will_take_and_a_tenth_more() -> None:
    forecast = Forecast({"float32": 100.0})
    forecast.learn("ours", SMALL, _cell())
    # Three calls to warm up, and five in each of two rounds.
    assert forecast.predict("ours", SMALL, 2) == pytest.approx({"seconds": 2 + 13 * 0.011, "bytes": 300e6})
    work = macs("alex", 256, 256) / macs("alex", 64, 64)
    large = forecast.predict("ours", LARGE, 2)
    assert large["seconds"] == pytest.approx(2 + 13 * 0.011 * work)
    # At most what this project's own table says, twice, for every pixel: 150 bytes.
    assert large["bytes"] == pytest.approx(300e6 + 2 * 150 * 256**2)
    assert forecast.predict("ours", BATCH, 2)["bytes"] == pytest.approx(300e6 + 2 * 150 * 8 * 64**2)
    # Less work takes less time, but no less memory than was seen.
    forecast.learn("ours", LARGE, _cell())
    assert forecast.predict("ours", SMALL, 2)["bytes"] == 300e6


def test_only_the_last_job_of_that_subject_and_net_counts_and_only_if_it_was_measured() -> None:
    forecast, untaught = Forecast({"float32": 100.0}), Forecast({"float32": 100.0}).predict("ours", SMALL, 2)
    forecast.learn("eager", SMALL, _cell())
    forecast.learn("ours", Job("squeeze", "", 64, 1, 1), _cell())
    forecast.learn("ours", SMALL, _cell("absent"))
    assert forecast.predict("ours", SMALL, 2) == untaught
    forecast.learn("ours", SMALL, _cell())
    forecast.learn("ours", SMALL, _cell(ms=1000.0))
    forecast.learn("ours", LARGE, _cell("not run", ms=1.0))
    assert forecast.predict("ours", SMALL, 2)["seconds"] == pytest.approx(2 + 13 * 1.1)


def test_what_a_gpu_has_to_do_is_predicted_by_its_own_speed() -> None:
    forecast = Forecast({"float32": 100.0, "cuda float32": 50_000.0})
    work = 2 * macs("alex", 256, 256)
    calls = 3 + 5 * 5
    assert forecast.predict("cuda", LARGE, 5)["seconds"] == pytest.approx(2 + calls * work / (50e12 * 0.4))
    assert forecast.predict("ours", LARGE, 5)["seconds"] == pytest.approx(2 + calls * work / (100e9 * 0.4))


def test_fewer_threads_take_longer_and_more_are_not_trusted_to_be_faster() -> None:
    forecast = Forecast({"float32": 100.0})
    forecast.learn("ours", Job("alex", "", 64, 1, 2), _cell())
    one, two, four = (forecast.predict("ours", Job("alex", "", 64, 1, n), 2)["seconds"] - 2 for n in (1, 2, 4))
    assert one == pytest.approx(2 * two)
    assert four == pytest.approx(two)
