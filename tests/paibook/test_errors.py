"""Errors travel between processes whole, and show a notebook its own lines only."""

from __future__ import annotations

import pickle
import threading

import pytest

from paibook import errors
from paibook.errors import PaibookError, PlanError, RankLost, RunError, TableError, UserCodeError


class Unpicklable(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Unloadable(Exception):
    """Pickles, but does not unpickle."""

    def __reduce__(self) -> tuple[type[int], tuple[str]]:
        return (int, ("boom",))


def user_error(original: BaseException | None = None) -> UserCodeError:
    return UserCodeError("rank 1", "ValueError", "boom", "Traceback\n  File 'Cell In[1]', line 2\n", original)


@pytest.mark.parametrize(
    "kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, PaibookError)]
)
def test_every_error_is_a_paibook_error_with_a_docstring(kind: type[PaibookError]) -> None:
    assert issubclass(kind, PaibookError)
    assert kind.__doc__


def test_a_notebook_shows_the_message_alone() -> None:
    assert PlanError("-n must be 1 or more")._render_traceback_() == ["PlanError: -n must be 1 or more"]


def test_a_notebook_shows_a_user_error_by_its_own_lines() -> None:
    shown = "\n".join(user_error()._render_traceback_())
    assert "Cell In[1]" in shown
    assert "rank 1" in shown
    assert "ValueError" in shown
    assert "errors.py" not in shown


def test_a_table_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="table 'w'"):
        raise TableError("table 'w': shape")


class TestRankLost:
    def test_names_role_rank_and_cause(self) -> None:
        assert str(RankLost("server", 2, "killed by SIGKILL")) == "server rank 2 was lost: killed by SIGKILL"

    def test_is_a_run_error(self) -> None:
        assert issubclass(RankLost, RunError)

    def test_survives_a_pickle(self) -> None:
        copy = pickle.loads(pickle.dumps(RankLost("worker", 3, "exit 1")))
        assert (copy.role, copy.rank, copy.cause, str(copy)) == (
            "worker",
            3,
            "exit 1",
            "worker rank 3 was lost: exit 1",
        )


class TestUserCodeError:
    def test_names_where_what_and_why(self) -> None:
        assert str(user_error()) == "rank 1: ValueError: boom"

    def test_an_error_without_text_has_no_dangling_colon(self) -> None:
        assert str(UserCodeError("rank 0", "KeyError", "", "")) == "rank 0: KeyError"

    def test_takes_the_original_along(self) -> None:
        copy = pickle.loads(pickle.dumps(user_error(ValueError("boom"))))
        assert isinstance(copy.original, ValueError)
        assert copy.original.args == ("boom",)
        assert (str(copy), copy.traceback) == (str(user_error()), user_error().traceback)

    def test_takes_an_exception_class_of_the_cell_along(self) -> None:
        namespace: dict[str, type[Exception]] = {}
        exec("class Mine(Exception): pass", {"__name__": "__main__"}, namespace)
        copy = pickle.loads(pickle.dumps(user_error(namespace["Mine"]("boom"))))
        assert type(copy.original).__name__ == "Mine"

    @pytest.mark.parametrize("original", [Unpicklable("boom"), Unloadable("boom")])
    def test_leaves_behind_an_original_that_does_not_pickle(self, original: Exception) -> None:
        copy = pickle.loads(pickle.dumps(user_error(original)))
        assert copy.original is None
        assert str(copy) == "rank 1: ValueError: boom"
