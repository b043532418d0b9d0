"""What every test shares: a run history of its own, tests in a useful order, and no process left behind."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from paibook.settings import settings

# Inherited by everything the tests start, also by processes that have left our session or lost their parent.
MARK = "PAIBOOK_TEST_RUN"
# multiprocessing's own helpers live as long as the interpreter that started them.
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")

# A busy machine is slow now and then, and no example is wrong for that. Half of Hypothesis's own number of examples:
# they are others in every run, and the whole suite is to take less than 25 minutes.
hypothesis.settings.register_profile(
    "paibook", deadline=None, max_examples=50, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("paibook")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first, the slow ones after, the browser's last."""
    items.sort(key=lambda item: bool(item.get_closest_marker("slow")) + 2 * bool(item.get_closest_marker("browser")))


@pytest.fixture(scope="session", autouse=True)
def runs_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Point ``PAIBOOK_RUNS`` at a scratch folder, so that tests never touch the user's run history; the leases too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIBOOK_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("PAIBOOK_LEASES", str(tmp_path_factory.mktemp("leases")))
        yield


@pytest.fixture
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty run history for one test."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("PAIBOOK_RUNS", str(folder))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail the run when a process that the tests started outlives them by 10 s."""
    token = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, token)
        yield
        left = leftover_processes(token, patience=10.0)
    assert not left, "processes outlived the tests that started them:\n" + "\n".join(left)


def leftover_processes(token: str, patience: float) -> list[str]:
    """Other processes marked with ``token`` that are still there after ``patience`` seconds, as text."""
    deadline = time.monotonic() + patience
    while (left := _marked(token)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _marked(token: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.environ().get(MARK) != token:
                continue
            command = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and not any(helper in command for helper in HELPERS):
                found.append(f"{process.pid} {command[:160]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended meanwhile, or not ours
    return found
