"""The grammar of the ``%%pai_*`` lines: one table of options, parsed into a plan's fields."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import shlex
from functools import cache
from typing import Any, NoReturn, get_args

from paibook.comms.backends import NAMES as BACKENDS
from paibook.data.formats import FORMATS
from paibook.errors import PlanError
from paibook.resources import Placement
from paibook_magics.examples import SUMMARIES, examples_text
from paibook_magics.option_values import (
    at_least,
    columns,
    labels,
    most_bad,
    percent,
    pulls,
    seconds,
    share,
    size,
    variables,
)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of exiting, and suggests the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise PlanError(f"%%{self.prog}: {message}; `%%{self.prog}?` shows every option")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise PlanError((message or "").strip() or f"%%{self.prog} ended")

    def parse_line(self, line: str) -> argparse.Namespace:
        """Parse a magic's line.

        Raises:
            PlanError: An unknown option (the nearest one is named), a bad value, or unbalanced quotes.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise PlanError(f"%%{self.prog}: cannot read the line: {error}") from error
        values, unknown = self.parse_known_args(words)
        if unknown:
            self._refuse(unknown[0])
        return values

    def _refuse(self, word: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(word.split("=")[0], known, n=1, cutoff=0.7)
        hint = f"; did you mean {near[0]}?" if near else ";"
        kind = "option" if word.startswith("-") else "word"
        raise PlanError(f"%%{self.prog}: unknown {kind} {word!r}{hint} `%%{self.prog}?` shows every option")


@cache
def parser(magic: str) -> Parser:
    """The parser of one cell magic, such as ``"pai_ps"``."""
    made = Parser(
        prog=magic,
        description=SUMMARIES[magic],
        epilog=examples_text(magic),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    own = made.add_argument_group(f"options of %%{magic}")
    {"pai_mapreduce": _add_mapreduce, "pai_allreduce": _add_allreduce, "pai_ps": _add_ps}[magic](own)
    shared = made.add_argument_group("options of every %%pai_* cell")
    if magic != "pai_mapreduce":  # which has outputs of its own
        shared.add_argument("-o", "--out", default=None, metavar="NAME", help="keep the result in this variable")
        _add_cards(own.add_argument)
    _add_shared(shared)
    return made


def _add_shared(group: Any) -> None:
    add = group.add_argument
    add(
        "-n",
        "--workers",
        type=at_least(1),
        default=0,
        metavar="N",
        help="workers or ranks; as many as the cluster has",
    )
    add("-g", "--gpus", type=at_least(0), default=0, metavar="N", help="GPUs for each worker; none")
    add("-t", "--targets", default=None, metavar="RANKS", help="run on these ranks only: 0  0,2  0-2  ::2  all")
    add("--push", type=variables, default=(), metavar="a,b", help="send these notebook variables along")
    add(
        "--pull",
        type=pulls,
        default=(),
        metavar="c[@rank]",
        help="fetch these variables back, from rank 0 or the one named",
    )
    add("-a", "--noblock", action="store_true", help="return a Run at once; `await run` or run.result() waits")
    add(
        "--detach",
        action="store_true",
        help="give the run to a process of its own, which goes on when this kernel ends; `%%pai_runs stop`, `result`",
    )
    add("--timeout", type=seconds, default=None, metavar="S", help="stop the run after S seconds")
    add("--progress-after", type=seconds, default=2.0, metavar="S", help="show a progress bar after S seconds; 2")
    add("--local", action="store_true", help="also run the cell here, in the notebook")
    add("--group-outputs", action="store_true", help="show what ranks print grouped by rank, at the end")
    add("--name", default="", help="name of the run in %%pai_runs")
    add(
        "--hp",
        nargs="+",
        action="extend",
        default=[],
        metavar="[MODEL] lr=0.1",
        help="hyperparameters; the cell sees them as hp.lr. MODEL is a notebook variable: a pai.HyperParameters "
        "subclass or instance, or a dict of defaults",
    )
    add("--dry-run", action="store_true", help="show the plan and its picture; run nothing")
    add("--explain", action="store_true", help="show the run in a player beside the code: pause, step, replay")
    add(
        "--cluster",
        default=None,
        metavar="JSON|REF",
        help='PAI\'s resource JSON {"ps":{"count":1},"worker":{"count":2,"gpu":100}}'
        " (100 is one card), or a cluster reference such as tcp://HOST:8786",
    )


def _add_mapreduce(group: Any) -> None:
    _add_inputs(group)
    _add_outputs(group)
    _add_shuffle(group)
    _add_robustness(group)


def _add_inputs(group: Any) -> None:
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add = group.add_argument
    add(
        "-i",
        "--input",
        **several,
        metavar="[NAME=]IN",
        help="files, folders, globs, URLs, a notebook variable, or run:ID, what another run wrote; a name gives the "
        "input a mapper of its own, map_NAME",
    )
    add("--format", choices=FORMATS, default=None, help="of the input; by its ending")
    add("--sample", type=share, default=None, metavar="1%", help="read this share of the input only: 1%% or 0.01")
    add(
        "--resource",
        **several,
        metavar="FILE",
        help='files sent to every worker; the cell finds one by pai.resource("stopwords.txt")',
    )
    add("--sql", action="store_true", help="the cell is one SQL query over the named inputs (DuckDB)")


def _add_outputs(group: Any) -> None:
    add = group.add_argument
    add(
        "-o",
        "--out",
        nargs="+",
        action="extend",
        default=[],
        metavar="[NAME=]OUT",
        help="keep the result in this variable, or write this path; a name is for what the cell yields as "
        "pai.output(NAME, record)",
    )
    add(
        "--as",
        dest="kind",
        choices=["list", "dataframe"],
        default=None,
        help="form of a result kept in a variable: a list, unless a query made it",
    )
    add("--partition-by", type=columns, default=(), metavar="a,b", help="columns that become folders of an output path")
    add("--overwrite", action="store_true", help="replace an output path that exists")


def _add_shuffle(group: Any) -> None:
    add = group.add_argument
    add("--reducers", type=at_least(1), default=None, metavar="R", help="partitions of the shuffle; two per worker")
    add("--key", type=columns, default=(), metavar="a,b", help="key columns of tables; the column key, else the first")
    add(
        "--sort",
        nargs="?",
        choices=["asc", "desc"],
        const="asc",
        default=None,
        help="reduce keys in order; keys that cannot be compared are an error",
    )


def _add_robustness(group: Any) -> None:
    add = group.add_argument
    add(
        "--max-bad",
        type=most_bad,
        default=None,
        metavar="N|x%",
        help="skip so many bad records and keep them aside; none",
    )
    add("--memory", type=size, default=None, metavar="512MB", help="bytes each worker may use before it spills")
    add("--no-backups", dest="backups", action="store_false", help="no second copy of a task that is slow at the end")


def _add_placement(add: Any) -> None:
    add(
        "--placement",
        choices=get_args(Placement),
        default="spread",
        help="start ranks on the emptiest workers, or on as few hosts as possible; spread",
    )


def _add_cards(add: Any) -> None:
    add(
        "--cards",
        type=labels,
        default=(),
        metavar="0,1",
        help="the GPU of each worker, by the numbers of %%pai_gpus, those of rank 0 first; one named k times is "
        "shared by k; any that are free",
    )
    add(
        "--gpu-share",
        type=percent,
        default=None,
        metavar="50%",
        help="of each GPU; several workers share one below 100%%",
    )
    add("--cpu-fallback", action="store_true", help="run on the CPU where there is no GPU, rather than refuse")


def _add_allreduce(group: Any) -> None:
    add = group.add_argument
    _add_placement(add)
    add("--backend", choices=BACKENDS, default="auto", help="what comm goes through; by where the ranks are")
    add(
        "--no-check",
        dest="check",
        action="store_false",
        help="do not compare what ranks call on comm where they wait for each other, and at the end",
    )
    add(
        "--max-restarts",
        type=at_least(0),
        default=3,
        metavar="N",
        help="deaths of ranks after which a cell with a pai.state goes on from its last snapshot; 3",
    )
    add(
        "--min-workers",
        type=at_least(1),
        default=None,
        metavar="K",
        help="begin, or go on without a lost rank, with as few as K ranks where there is no room for all, and "
        "take more in when there is; as many as -n",
    )


def _add_ps(group: Any) -> None:
    add = group.add_argument
    _add_placement(add)
    add("--servers", type=at_least(1), default=1, metavar="N", help="processes that hold the model; 1")
    add("--consistency", choices=["bsp", "ssp", "asp"], default="bsp", help="how far workers may drift apart; bsp")
    add("--staleness", type=at_least(0), default=None, metavar="S", help="clocks a pull may miss under ssp")
    add("--memory", type=size, default=None, metavar="512MB", help="bytes each server may use before rows go to disk")
    add(
        "--nan",
        choices=["stop", "skip"],
        default="stop",
        help="what a gradient with NaN or infinity does: stop the run, or skip its rows; stop",
    )
    add("--until", default=None, metavar="EXPR", help='when to stop, such as "loss < 0.3 or epoch >= 20"')
    add(
        "--replicas",
        type=at_least(0),
        default=None,
        metavar="R",
        help="copies of each part of the model on other servers; 1 where there are 2 servers, else 0",
    )
    add("--max-restarts", type=at_least(0), default=3, metavar="N", help="deaths of one process that are made good; 3")
    add(
        "--checkpoint",
        default=None,
        metavar="FOLDER",
        help="where checkpoints are; training goes on from the one there",
    )
    add(
        "--checkpoint-every", type=at_least(1), default=None, metavar="N", help="clocks from one checkpoint to the next"
    )


def parse_targets(text: str | None, size: int) -> tuple[int, ...] | None:
    """Ranks named by ``-t``: ``0``, ``0,2``, ``0-2``, ``::2`` or ``all``.

    Args:
        text: As typed.
        size: Number of ranks; 0 where it is not known yet, which slices need.

    Raises:
        PlanError: It names no rank, or one that does not exist.

    >>> parse_targets("0,2-3", 4)
    (0, 2, 3)
    """
    if text is None or text == "all":
        return None
    chosen: list[int] = []
    for part in text.split(","):
        chosen += _target(part.strip(), size, text)
    if not chosen:
        raise PlanError(
            f"-t {text}: no rank is chosen{f'; with -n {size} the ranks are 0 to {size - 1}' if size else ''}"
        )
    wrong = [rank for rank in chosen if size and rank >= size]
    if wrong:
        raise PlanError(f"-t {text}: there is no rank {wrong[0]}; with -n {size} the ranks are 0 to {size - 1}")
    return tuple(dict.fromkeys(chosen))


def _target(part: str, size: int, text: str) -> list[int]:
    if re.fullmatch(r"\d+", part):
        return [int(part)]
    if match := re.fullmatch(r"(\d+)-(\d+)", part):
        first, last = int(match[1]), int(match[2])
        return list(range(first, (min(last, max(first, size)) if size else last) + 1))
    if re.fullmatch(r"-?\d*:-?\d*(:(-?0*[1-9]\d*)?)?", part):
        if not size:
            raise PlanError(f"-t {text}: a slice needs -n, to know how many ranks there are")
        bounds = [int(word) if word else None for word in part.split(":")]
        return list(range(size)[slice(*bounds)])
    raise PlanError(f"-t {text}: ranks are given as 0  0,2  0-2  ::2 or all")


def parse_pai_cluster(text: str) -> dict[str, int]:
    """PAI's resource JSON as workers, servers and gpus; 100 of ``gpu`` is one card, less a share of one.

    Raises:
        PlanError: Not JSON, or not of PAI's shape.
    """
    example = '{"ps":{"count":1},"worker":{"count":2,"gpu":100}}'
    try:
        roles = json.loads(text)
        found = {}
        for role, key in (("worker", "workers"), ("ps", "servers")):
            if role in roles:
                found[key] = int(roles[role].get("count", 1))
        if "worker" in roles and "gpu" in roles["worker"]:
            hundredths = int(roles["worker"]["gpu"])
            found["gpus"] = -(-hundredths // 100)
            if 0 < hundredths < 100:
                found["gpu_share"] = hundredths
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise PlanError(f"--cluster takes PAI's JSON in single quotes, such as '{example}'; got {text!r}") from error
    unknown = set(roles) - {"worker", "ps"}
    if unknown:
        raise PlanError(
            f"--cluster: unknown role {min(unknown)!r}; PAI's roles here are worker and ps, as in {example}"
        )
    return found
