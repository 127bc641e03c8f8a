"""The journal of a stopped run: what it goes on with, and whose it is."""

from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.journal import Journal
from lpips_runtime.errors import OutputError, UsageError

CALL = {"arguments": ["latency", "--größe"]}


def _stopped(report: Path, *steps: str) -> Path:
    """The journal of a run that was stopped after some steps; each has a cell with its name."""
    with suppress(KeyboardInterrupt), Journal(report, CALL) as journal:
        for step in steps:
            journal.add(step, [{"subject": step}])  # pyright: ignore[reportArgumentType]
        raise KeyboardInterrupt
    return report.with_name(".r.json.unfinished")


def test_journal_goes_on_after_a_stop_and_goes_when_all_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _stopped(tmp_path / "r.json", "one", "two")
    assert "steps measured so far: 2" in capsys.readouterr().err
    with Journal(tmp_path / "r.json", CALL) as journal:
        assert journal.steps == {"one": [{"subject": "one"}], "two": [{"subject": "two"}]}
        assert path.exists()
    assert list(tmp_path.iterdir()) == []


def test_journal_without_a_step_is_in_nobodys_way(tmp_path: Path) -> None:
    _stopped(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 20])
def test_a_torn_last_line_is_dropped_and_its_step_measured_again(cut: int, tmp_path: Path) -> None:
    path = _stopped(tmp_path / "r.json", "one", "two")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Journal(tmp_path / "r.json", CALL) as journal:
        assert list(journal.steps) == ["one"]
        journal.add("two", [{"subject": "two"}])  # pyright: ignore[reportArgumentType]
        assert path.read_bytes() == whole


def test_a_torn_first_line_is_no_other_call(tmp_path: Path) -> None:
    path = _stopped(tmp_path / "r.json", "one")
    path.write_bytes(path.read_bytes()[:10])
    assert _stopped(tmp_path / "r.json", "one") == path
    with Journal(tmp_path / "r.json", CALL) as journal:
        assert list(journal.steps) == ["one"]


def test_journal_of_another_call_is_left_alone_and_said_in_one_line(tmp_path: Path) -> None:
    path = _stopped(tmp_path / "r.json", "one")
    before = path.read_bytes()
    with (
        pytest.raises(UsageError, match=r"left by another call, machine or version; delete it") as refused,
        Journal(tmp_path / "r.json", {"arguments": ["scaling"]}),
    ):
        raise AssertionError
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before


def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with Journal(tmp_path / "r.json", CALL) as journal:
        with pytest.raises(OutputError, match="another process is writing it"), Journal(tmp_path / "r.json", CALL):
            raise AssertionError
        journal.add("one", [])
        assert len(journal.path.read_text(encoding="utf-8").splitlines()) == 2


def test_journal_that_cannot_be_written_is_an_error_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"cannot be written"), Journal(tmp_path / "missing" / "r.json", CALL):
        raise AssertionError

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with suppress(OutputError), Journal(tmp_path / "r.json", CALL) as journal:
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OutputError, match=r"\.r\.json\.unfinished: cannot be written: No space left"):
            journal.add("one", [])
        assert journal.steps == {}


def test_a_journal_that_was_damaged_is_a_wrong_call(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with suppress(KeyboardInterrupt), Journal(report, {"a": 1}) as journal:
        journal.add("one", [])
        raise KeyboardInterrupt
    with open(journal.path, "a") as file:
        file.write("no line of mine\n")
    with pytest.raises(UsageError, match=r"is damaged: .*; delete it"), Journal(report, {"a": 1}):
        pass


def test_of_the_limits_that_were_measured_the_best_count_in_a_run_that_goes_on_too(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), Journal(tmp_path / "r.json", CALL) as journal:
        journal.add_beginning("today")
        journal.add_limits({"float32": 300.0, "bfloat16": 611.0, "cuda half": None})
        journal.add("one", [])
        raise KeyboardInterrupt
    with Journal(tmp_path / "r.json", CALL) as journal:
        assert (list(journal.steps), journal.began) == (["one"], ["today"])
        journal.add_limits({"float32": 280.0, "bfloat16": 1533.0, "cuda half": None})
        assert journal.limits == {"float32": 300.0, "bfloat16": 1533.0, "cuda half": None}
