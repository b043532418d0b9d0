"""The one file that knows Optuna: a study kept in a file, its sampler and pruner, its trials."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import psutil
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from paibook.errors import PaibookError, PlanError
from paibook.hyperparameters.fields import FieldView
from paibook.studies.space import Space
from paibook.studies.trials import CURVE, State, StudyOptions, Trial

STARTUP_TRIALS = 5  # that end before any is judged, or chosen by what the others gave
LEAST_FOR_IMPORTANCE = 4
STALE_SECONDS = 5  # after which a lock is broken whose process ended in the middle of a line
TAKEN_UP = "taken up"
DRIVEN = "driven"
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class OptunaStudy:
    """A study in ``FOLDER/NAME.journal`` (Optuna's journal: one JSON object a line, safe for several processes).

    Args:
        name: Of the study.
        space: What is searched.
        options: As asked for.

    Raises:
        PlanError: The study exists and is not to go on, does not exist and is to, or was made for something else.
        PaibookError: Its file cannot be made or read.
    """

    def __init__(self, name: str, space: Space, options: StudyOptions) -> None:
        self.name = name
        self.path = options.folder / f"{name}.journal"
        self._space = space
        self._distributions = {view.path: _distribution(view) for view in space.searched}
        self._lock = threading.Lock()
        self._running: dict[int, optuna.Trial] = {}
        exists = self.path.exists()
        if exists and not options.resume:
            raise PlanError(
                f"the study {name!r} exists ({self.path}): --resume goes on with it; or choose another name"
            )
        if options.resume and not exists:
            known = ", ".join(sorted(path.stem for path in options.folder.glob("*.journal"))) or "none"
            raise PlanError(f"there is no study {name!r} in {options.folder}; there are: {known}")
        with _quiet():
            self._study = self._open(options)
        self._taken_up: set[int] = set(self._study.user_attrs.get(TAKEN_UP, ()))
        self._fit(options, exists)
        if exists:
            self._take_up()

    def _open(self, options: StudyOptions) -> optuna.Study:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            backend = JournalFileBackend(str(self.path), JournalFileOpenLock(str(self.path), STALE_SECONDS))
            return optuna.create_study(
                storage=JournalStorage(backend),
                study_name=self.name,
                direction=options.direction,
                sampler=_sampler(options),
                pruner=_pruner(options),
                load_if_exists=True,
            )
        except OSError as error:
            raise PaibookError(
                f"cannot keep the study in {self.path}: {error.strerror}; choose a folder you own"
            ) from error
        except (ValueError, KeyError) as error:
            raise PaibookError(f"{self.path} is not a study, or is damaged ({error}); move it away") from error

    def _fit(self, options: StudyOptions, exists: bool) -> None:
        """Note what the study is about, or refuse to go on with one that is about something else."""
        asked = {"metric": options.metric, "which": options.which, "space": self._space.described()}
        asked = json.loads(json.dumps(asked))
        if not exists:
            for key, value in asked.items():
                self._study.set_user_attr(key, value)
            return
        known = self._study.user_attrs
        wrong = [key for key, value in asked.items() if known.get(key) != value]
        if self._study.direction.name.lower() != options.direction:
            wrong.append("direction")
        if wrong:
            raise PlanError(
                f"the study {self.name!r} has another {' and '.join(wrong)}; choose another name for this one"
            )

    def _take_up(self) -> None:
        """Have trials tried again that ended with their process, or with a search that was stopped."""
        for trial in self._study.get_trials(deepcopy=False):
            left = trial.state == TrialState.RUNNING and not _is_driven(trial)
            if left:
                self._study.tell(trial.number, state=TrialState.FAIL)
            if (left or trial.user_attrs.get("again")) and trial.number not in self._taken_up:
                self._taken_up.add(trial.number)
                # Noted first: where this process ends between the two, values are lost, and none are tried twice.
                self._study.set_user_attr(TAKEN_UP, sorted(self._taken_up))
                self._study.enqueue_trial(trial.params)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Begin a trial: its number, and the values to try by dotted path."""
        with self._lock, _quiet():
            trial = self._study.ask(self._distributions)
            self._running[trial.number] = trial
            return trial.number, dict(trial.params)

    def report(self, number: int, step: int, value: float) -> None:
        """Note the metric of a step of a trial that runs."""
        with self._lock:
            self._running[number].report(value, step)

    def should_prune(self, number: int) -> bool:
        """Whether a trial does so badly that it should end."""
        with self._lock, _quiet():
            return self._running[number].should_prune()

    def note_run(self, number: int, run: str) -> None:
        """Keep the run of a trial, and which process drives it."""
        facts = {"run": run, "pid": os.getpid(), "created": psutil.Process().create_time()}
        with self._lock:
            self._running[number].set_user_attr(DRIVEN, facts)  # in one, since each is a line that is synced to disk

    def tell(self, number: int, state: State, value: float | None = None, error: str = "", again: bool = False) -> None:
        """End a trial.

        Args:
            number: Of a trial that runs.
            state: Not ``running``.
            value: Of the metric, for a trial that is done.
            error: Why it failed.
            again: Whether the study is to try these values again when it is resumed.
        """
        states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "stopped": TrialState.PRUNED}
        with self._lock, _quiet():
            trial = self._running.pop(number)
            if state == "stopped":
                trial.set_user_attr("state", state)
            if error:
                trial.set_user_attr("error", error)
            if again:
                trial.set_user_attr("again", True)
            ended = TrialState.FAIL if again else states.get(state, TrialState.FAIL)
            self._study.tell(trial, value if ended == TrialState.COMPLETE else None, ended)

    def ended(self) -> int:
        """How many trials have ended, those left out that are to be tried again."""
        with self._lock:
            return sum(
                trial.state.is_finished() and not self._is_again(trial)
                for trial in self._study.get_trials(deepcopy=False)
            )

    def trials(self) -> list[Trial]:
        """Every trial that has begun and is not to be tried again."""
        with self._lock:
            known = self._study.get_trials(deepcopy=False)
        return [_trial(one) for one in known if one.state != TrialState.WAITING and not self._is_again(one)]

    def best(self) -> int | None:
        """Number of the best trial that is done, or None."""
        with self._lock:
            try:
                return self._study.best_trial.number
            except ValueError:  # none is
                return None

    def importance(self) -> dict[str, float]:
        """The share of each hyperparameter in what made trials good or bad (PED-ANOVA, Watanabe et al., 2023).

        Empty while too few trials are done to tell.
        """
        with self._lock, _quiet():
            done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if len(done) < LEAST_FOR_IMPORTANCE or len({trial.value for trial in done}) == 1:
                return {}
            try:
                return optuna.importance.get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator())
            except (ValueError, RuntimeError, ZeroDivisionError):  # values too alike for its estimate
                return {}

    def _is_again(self, trial: FrozenTrial) -> bool:
        return bool(trial.user_attrs.get("again")) or trial.number in self._taken_up


def _distribution(view: FieldView) -> BaseDistribution:
    if view.kind == "bool":
        return CategoricalDistribution([False, True])
    if view.choices:
        return CategoricalDistribution(view.choices)
    assert view.low is not None
    assert view.high is not None
    if view.kind == "int":
        step = int(view.step or 1)
        low = int(view.low) + step * view.low_open
        return IntDistribution(low, int(view.high) - view.high_open, log=view.log, step=1 if view.log else step)
    margin = (view.high - view.low) * 1e-9
    least, most = view.low + margin * view.low_open, view.high - margin * view.high_open
    return FloatDistribution(least, most, log=view.log, step=view.step)


def _sampler(options: StudyOptions) -> optuna.samplers.BaseSampler:
    if options.sampler == "random":
        return optuna.samplers.RandomSampler(seed=options.seed)
    return optuna.samplers.TPESampler(seed=options.seed, constant_liar=True)


def _pruner(options: StudyOptions) -> optuna.pruners.BasePruner:
    if options.pruner == "none":
        return optuna.pruners.NopPruner()
    if options.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, options.warmup))
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=options.warmup)


def _trial(trial: FrozenTrial) -> Trial:
    attrs = trial.user_attrs
    steps = sorted(trial.intermediate_values)
    curve = [trial.intermediate_values[step] for step in steps]
    every = max(1, math.ceil(len(curve) / CURVE))
    return Trial(
        trial.number,
        attrs.get("state") or _STATES[trial.state],
        dict(trial.params),
        trial.value if trial.value is not None else (curve[-1] if curve else None),
        tuple(curve[::-1][::every][::-1]),
        str(attrs.get(DRIVEN, {}).get("run", "")),
        0.0 if trial.duration is None else trial.duration.total_seconds(),
        str(attrs.get("error", "")),
    )


def _is_driven(trial: FrozenTrial) -> bool:
    driven = trial.user_attrs.get(DRIVEN)
    try:
        return driven is not None and abs(psutil.Process(driven["pid"]).create_time() - driven["created"]) < 1
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines on standard error and its notes on what is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
