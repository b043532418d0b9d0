"""Settings from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from paibook.errors import PaibookError
from paibook.settings import Settings, settings

NUMBERS = ["PAIBOOK_WORKERS", "PAIBOOK_MAX_WORKERS", "PAIBOOK_START_TIMEOUT"]


def test_an_empty_environment_gives_defaults_that_work() -> None:
    made = Settings.read({})
    assert made.cluster == "embedded"
    assert made.workers >= 2
    assert made.max_workers >= max(16, made.workers)
    assert made.start_timeout == 30
    assert made.runs.is_absolute()
    assert made.runs.parts[-2:] == ("paibook", "runs")


def test_every_variable_is_read() -> None:
    made = Settings.read(
        {
            "PAIBOOK_RUNS": "/somewhere/runs",
            "PAIBOOK_CLUSTER": "inline",
            "PAIBOOK_WORKERS": "3",
            "PAIBOOK_MAX_WORKERS": "5",
            "PAIBOOK_START_TIMEOUT": "2.5",
            "PAIBOOK_SHARED_MEMORY": "0",
            "PAIBOOK_JOBS": "/somewhere/jobs",
            "PAIBOOK_LEASES": "/somewhere/leases",
        }
    )
    folders = {"jobs": Path("/somewhere/jobs"), "leases": Path("/somewhere/leases")}
    assert made == Settings(Path("/somewhere/runs"), "inline", 3, 5, 2.5, False, **folders)


def test_room_grows_with_the_workers() -> None:
    assert Settings.read({"PAIBOOK_WORKERS": "500"}).max_workers == 500


def test_a_home_folder_is_written_with_a_tilde() -> None:
    assert Settings.read({"PAIBOOK_RUNS": "~/runs"}).runs == Path.home() / "runs"


@pytest.mark.parametrize("name", ["PAIBOOK_RUNS", "PAIBOOK_CLUSTER"])
def test_an_empty_value_is_none(name: str) -> None:
    assert Settings.read({name: ""}) == Settings.read({})


def test_a_switch_is_0_or_1() -> None:
    assert Settings.read({}).shared_memory
    with pytest.raises(PaibookError, match="PAIBOOK_SHARED_MEMORY must be 0 or 1; got 'no'"):
        Settings.read({"PAIBOOK_SHARED_MEMORY": "no"})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["many", "0", "-2", "nan", "inf", "1e999"])
def test_a_bad_number_names_its_variable(name: str, text: str) -> None:
    with pytest.raises(PaibookError) as caught:
        Settings.read({name: text})
    assert str(caught.value).startswith(name + " must be")
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("name", NUMBERS[:2])
@pytest.mark.parametrize("text", ["0.5", "2.7"])
def test_workers_are_whole(name: str, text: str) -> None:
    with pytest.raises(PaibookError, match=f"{name} must be a whole number"):
        Settings.read({name: text})


def test_they_are_read_once(runs_folder: Path) -> None:
    assert settings().runs == runs_folder
    assert settings() is settings()
