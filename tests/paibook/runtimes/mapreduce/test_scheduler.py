"""The scheduler: in which order tasks begin, and what becomes of results that do not arrive."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from paibook.clusters.contract import Pending
from paibook.clusters.inline import InlineCluster, InlineTasks
from paibook.errors import RunError, UserCodeError
from paibook.runtimes.mapreduce.scheduler import Call, _lightest_first
from tests.paibook.runtimes.mapreduce.conftest import WORD_COUNT

pytestmark = pytest.mark.timeout(30)  # a fetch that fails unsaid leaves the run waiting for ever


class _Lost(Future[Any]):
    """Done like the task it stands for, but of no avail when it is asked."""

    def __init__(self, question: str, error: BaseException) -> None:
        super().__init__()
        self._question, self._error = question, error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._question == "exception":
            raise self._error
        return super().exception(timeout)

    def result(self, timeout: float | None = None) -> Any:
        raise self._error


class _Forgetful(InlineTasks):
    """Loses the results of some tasks on their way to the notebook."""

    def __init__(self, label: str, question: str, errors: list[BaseException]) -> None:
        super().__init__(2)
        self._label, self._question, self._errors = label, question, errors

    def submit(self, function: Callable[..., Any], *args: Any, label: str = "task", **options: Any) -> Pending[Any]:
        pending = super().submit(function, *args, label=label, **options)
        if label != self._label or not self._errors:
            return pending
        lost = _Lost(self._question, self._errors.pop())
        pending.add_done_callback(lambda _pending: lost.set_result(None))
        return lost  # type: ignore[return-value]


def cluster(label: str, question: str, errors: list[BaseException]) -> InlineCluster:
    made = InlineCluster(2)
    made._tasks = _Forgetful(label, question, errors)
    return made


@pytest.mark.parametrize("question", ["exception", "result"])
@pytest.mark.parametrize("label", ["map", "reduce"])
@pytest.mark.parametrize("error", [MemoryError("too large"), OSError("gone"), KeyboardInterrupt("now")], ids=repr)
def test_a_result_that_cannot_be_fetched_ends_the_run(
    run: Any, label: str, question: str, error: BaseException
) -> None:
    run.cluster = cluster(label, question, [error])
    message = rf"{label} task \d: .*its result cannot be fetched: {type(error).__name__}: {error}"
    with pytest.raises(UserCodeError, match=message):
        run.over(WORD_COUNT, ["a b", "b"])


@pytest.mark.parametrize("label", ["map", "reduce"])
def test_a_task_whose_worker_is_gone_by_then_is_done_again(run: Any, label: str) -> None:
    run.cluster = cluster(label, "result", [RunError("the worker is gone"), RunError("the worker is gone")])
    assert run.over(WORD_COUNT, ["a b", "b"]) == [{"word": "a", "n": 1}, {"word": "b", "n": 2}]
    assert {stage["name"]: stage["retried"] for stage in run.summary["stages"]}[label] == 2


def test_the_heaviest_tasks_begin_and_equals_keep_their_order() -> None:
    weights = [3, 9, 0, 3, 9]
    waiting = _lightest_first([Call(number, print, (), weight) for number, weight in enumerate(weights)])
    assert [waiting.pop().number for _ in weights] == [1, 4, 0, 3, 2]
