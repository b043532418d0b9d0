"""Which backend ranks get, by what is asked for and what they lack."""

from __future__ import annotations

import subprocess
import sys

import pytest

from paibook.comms import backends
from paibook.comms.backends import AUTO, BACKENDS, GLOO, HIERARCHICAL, MPI, NAMES, SHARED, candidates, choose, lacking
from paibook.errors import PlanError

ABLE, UNABLE = {SHARED: "", GLOO: ""}, {SHARED: "no such memory", GLOO: ""}


@pytest.mark.parametrize(
    ("hosts", "lacks", "chosen"),
    [
        ("a", [ABLE], SHARED),
        ("aaa", [ABLE] * 3, SHARED),
        ("aaa", [ABLE, ABLE, UNABLE], GLOO),
        ("ab", [ABLE] * 2, GLOO),
        ("aabb", [ABLE] * 4, HIERARCHICAL),
        ("abab", [ABLE] * 4, HIERARCHICAL),
        ("aab", [ABLE] * 3, GLOO),
        ("aabb", [ABLE] * 3 + [UNABLE], GLOO),
    ],
)
def test_auto_takes_what_the_ranks_can(hosts: str, lacks: list[dict[str, str]], chosen: str) -> None:
    assert choose(AUTO, lacks, list(hosts)) == chosen


def test_what_is_asked_for_is_taken_or_refused() -> None:
    assert choose(GLOO, [ABLE] * 2, ["a", "a"]) == GLOO
    assert choose(SHARED, [ABLE] * 2, ["a", "a"]) == SHARED
    with pytest.raises(PlanError, match="--backend shared is not possible on rank 1: no such memory"):
        choose(SHARED, [ABLE, UNABLE], ["a", "a"])
    with pytest.raises(PlanError, match="--backend shared is for ranks of one host; these are on 2"):
        choose(SHARED, [ABLE] * 3, ["a", "b", "a"])


def test_ranks_are_asked_about_what_may_be_chosen_alone() -> None:
    assert candidates(AUTO) == (SHARED,)
    assert candidates(GLOO) == (GLOO,)
    assert set(NAMES) - {AUTO} <= set(BACKENDS)
    assert lacking([GLOO]) == {GLOO: ""}


def test_a_process_without_torch_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    assert lacking([GLOO]) == {GLOO: "torch is not installed: pip install 'paibook[torch]'"}


def test_asking_imports_no_torch_unless_it_is_about_gpus() -> None:
    names = [GLOO, SHARED, HIERARCHICAL, MPI]
    program = f"import sys; from paibook.comms.backends import lacking; lacking({names}); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "paibook.comms.backends" in found
    assert "torch" not in found
