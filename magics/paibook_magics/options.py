"""The grammar of the ``%%pai_*`` lines: one table of options, parsed into a plan's fields."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import shlex
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

from paibook.errors import PlanError

EXAMPLES = {
    "pai_mapreduce": """%%pai_mapreduce -i docs -o counts
def map(line):
    for word in line.split():
        yield word, 1

def reduce(word, ones):
    yield word, sum(ones)""",
    "pai_allreduce": """%%pai_allreduce -n 2
import numpy as np
total = np.zeros(1)
comm.Allreduce(np.array([rank + 1.0]), total)
total""",
    "pai_ps": """%%pai_ps -n 2 --servers 2 --until "loss < 0.3 or epoch >= 20"
def train(ps):
    w = ps.table("w", shape=(10,), optimizer=pai.SGD(lr=0.1))
    for epoch in ps.clocks():
        weights = w.pull()
        w.push(2 * (weights - 1))
        pai.log(step=epoch, loss=float(((weights - 1) ** 2).sum()))""",
}

SUMMARIES = {
    "pai_mapreduce": "Run the cell's map and reduce over an input: independent pieces, shuffled by key.",
    "pai_allreduce": "Run the cell on n ranks that talk by MPI's operations (comm) or torch.distributed.",
    "pai_ps": "Run the cell's train(ps) on n workers that share a model held by parameter servers.",
}


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
        epilog="Example:\n\n" + EXAMPLES[magic],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    {"pai_mapreduce": _add_mapreduce, "pai_allreduce": _add_allreduce, "pai_ps": _add_ps}[magic](
        made.add_argument_group(f"options of %%{magic}")
    )
    _add_shared(made.add_argument_group("options of every %%pai_* cell"))
    return made


def _add_shared(group: Any) -> None:
    add = group.add_argument
    add(
        "-n",
        "--workers",
        type=_at_least(1),
        default=0,
        metavar="N",
        help="workers or ranks; as many as the cluster has",
    )
    add("-g", "--gpus", type=_at_least(0), default=0, metavar="N", help="GPUs for each worker; none")
    add("-t", "--targets", default=None, metavar="RANKS", help="run on these ranks only: 0  0,2  0-2  ::2  all")
    add("--push", type=_names, default=(), metavar="a,b", help="send these notebook variables along")
    add(
        "--pull",
        type=_pulls,
        default=(),
        metavar="c[@rank]",
        help="fetch these variables back, from rank 0 or the one named",
    )
    add(
        "-o",
        "--out",
        default=None,
        metavar="NAME",
        help="keep the result in this variable (%%%%pai_mapreduce: or write this path)",
    )
    add("-a", "--noblock", action="store_true", help="return a Run at once; `await run` or run.result() waits")
    add("--timeout", type=_seconds, default=None, metavar="S", help="stop the run after S seconds")
    add("--progress-after", type=_seconds, default=2.0, metavar="S", help="show a progress bar after S seconds; 2")
    add("--local", action="store_true", help="also run the cell here, in the notebook")
    add("--group-outputs", action="store_true", help="show what ranks print grouped by rank, at the end")
    add("--name", default="", help="name of the run in %%pai_runs")
    add(
        "--hp",
        nargs="+",
        action="extend",
        default=[],
        metavar="lr=0.1",
        help="hyperparameters; the cell sees them as hp.lr",
    )
    add("--dry-run", action="store_true", help="show the plan and its picture; run nothing")
    add(
        "--cluster",
        default=None,
        metavar="JSON|REF",
        help='PAI\'s resource JSON {"ps":{"count":1},"worker":{"count":2,"gpu":100}}'
        " (100 is one card), or a cluster reference such as tcp://HOST:8786",
    )


def _add_mapreduce(group: Any) -> None:
    add = group.add_argument
    add(
        "-i",
        "--input",
        nargs="+",
        action="extend",
        default=[],
        metavar="IN",
        help="files, globs, URLs, or a notebook variable",
    )
    add(
        "--format",
        choices=["text", "document", "jsonl", "csv", "parquet"],
        default=None,
        help="of the input; by its ending",
    )
    add("--reducers", type=_at_least(1), default=None, metavar="R", help="partitions of the shuffle; two per worker")
    add("--as", dest="kind", choices=["list", "dataframe"], default="list", help="form of a result kept in a variable")
    add("--overwrite", action="store_true", help="replace an output path that exists")


def _add_allreduce(group: Any) -> None:
    group.add_argument("--backend", choices=["gloo"], default="gloo", help="of torch.distributed and comm")


def _add_ps(group: Any) -> None:
    add = group.add_argument
    add("--servers", type=_at_least(1), default=1, metavar="N", help="processes that hold the model; 1")
    add("--consistency", choices=["bsp", "ssp", "asp"], default="bsp", help="how far workers may drift apart; bsp")
    add("--staleness", type=_at_least(0), default=None, metavar="S", help="clocks a pull may miss under ssp")
    add("--until", default=None, metavar="EXPR", help='when to stop, such as "loss < 0.3 or epoch >= 20"')


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
    """PAI's resource JSON as workers, servers and gpus; 100 of ``gpu`` is one card.

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
            found["gpus"] = -(-int(roles["worker"]["gpu"]) // 100)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise PlanError(f"--cluster takes PAI's JSON in single quotes, such as '{example}'; got {text!r}") from error
    unknown = set(roles) - {"worker", "ps"}
    if unknown:
        raise PlanError(
            f"--cluster: unknown role {min(unknown)!r}; PAI's roles here are worker and ps, as in {example}"
        )
    return found


def _at_least(least: int) -> Any:
    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"a whole number is expected, got {text!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"at least {least} is expected, got {text}")
        return value

    return whole_number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"seconds are expected, got {text!r}") from None
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"seconds above 0 are expected, got {text}")
    return value


def _names(text: str) -> tuple[str, ...]:
    return _checked(tuple(word.strip() for word in text.split(",") if word.strip()), text, r"[^\W\d]\w*")


def _pulls(text: str) -> tuple[str, ...]:
    return _checked(tuple(word.strip() for word in text.split(",") if word.strip()), text, r"[^\W\d]\w*(@\d+)?")


def _checked(words: Sequence[str], text: str, pattern: str) -> tuple[str, ...]:
    for word in words:
        if not re.fullmatch(pattern, word):
            raise argparse.ArgumentTypeError(f"variable names are expected, separated by commas; got {text!r}")
    return tuple(words)
