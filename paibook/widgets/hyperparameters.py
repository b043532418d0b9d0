"""The form of a model's hyperparameters: values with their checks, what the last run used, and a button that runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from pydantic import ValidationError

from paibook.errors import PlanError
from paibook.hyperparameters import HyperParameters
from paibook.hyperparameters.fields import FieldView, fields_of
from paibook.hyperparameters.model import messages, over_group_defaults
from paibook.hyperparameters.values import at, flat, nested, value_of, words
from paibook.widgets.output import WidgetOutput
from paibook.widgets.subshells import take_where_sent

_STATIC = Path(__file__).parent / "static"


class HyperParameterForm(anywidget.AnyWidget):
    """Edit the hyperparameters of the next run; never those of one that runs.

    The page sends what is entered, this object answers with what is wrong; ``hyperparameters`` is the checked whole.
    The whole state is in the traits, so a reloaded page shows what was entered.

    Args:
        model: Gives the fields.
        values: Laid over the model's defaults.
        name: The notebook variable that holds the model, for the magic line; empty: the line names every value.
        last, last_label: Values of the last run and what to call it.
        cells: What the form can run, latest first, as people would call them.
    """

    _esm = _STATIC / "hyperparameters.js"
    _css = _STATIC / "hyperparameters.css"

    title = traitlets.Unicode("").tag(sync=True)
    fields: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    entered: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    errors: traitlets.Dict[str, str] = traitlets.Dict().tag(sync=True)
    last: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    last_label = traitlets.Unicode("").tag(sync=True)
    differs: traitlets.List[str] = traitlets.List().tag(sync=True)
    line = traitlets.Unicode("").tag(sync=True)
    cells: traitlets.List[str] = traitlets.List().tag(sync=True)
    cell = traitlets.Int(0).tag(sync=True)
    state = traitlets.Unicode("").tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    can_close = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        model: type[HyperParameters],
        values: Mapping[str, Any] | None = None,
        name: str = "",
        last: Mapping[str, Any] | None = None,
        last_label: str = "",
        cells: Sequence[str] = (),
    ) -> None:
        self._model = model
        self._name = name
        self._views = {view.path: view for view in fields_of(model)}
        if not self._views:
            raise PlanError("a form needs a model with fields, or a dict of defaults; this one has none")
        self._on_run: Callable[[list[str], int], Any] | None = None
        self._on_close: Callable[[], Any] | None = None
        self._checked: HyperParameters | None = None
        given = flat(values or {})
        super().__init__(
            title=name or model.__name__,
            fields=[view.to_dict() for view in self._views.values()],
            entered={path: given.get(path, view.default) for path, view in self._views.items()},
            cells=list(cells),
        )
        self.show_last(last or {}, last_label)
        self.on_msg(self._receive)
        take_where_sent(self.comm)

    def use(self, on_run: Callable[[list[str], int], Any], on_close: Callable[[], Any]) -> None:
        """Say what the buttons do. JupyterLab may deliver a click on a thread of its own: both are called from any.

        Args:
            on_run: Called with the words of ``--hp`` and the place in ``cells`` by "Run with these", where nothing is
                wrong.
            on_close: Called once, by "Keep as a table".
        """
        self._on_run, self._on_close, self.can_close = on_run, on_close, True

    @property
    def hyperparameters(self) -> HyperParameters:
        """The values entered, checked.

        Raises:
            PlanError: Names what is wrong.
        """
        if self._checked is None:
            raise PlanError("; ".join(f"{path}: {text}" if path else text for path, text in self.errors.items()))
        return self._checked

    def enter(self, path: str, value: Any) -> None:
        """Set one value as it was entered, right or wrong.

        Raises:
            PlanError: The form has no such field.
        """
        if path not in self._views:
            raise PlanError(f"the form has no field {path!r}; it has {', '.join(self._views)}")
        self.entered = {**self.entered, path: value}
        self._check()

    def show_last(self, values: Mapping[str, Any], label: str) -> None:
        """Say what the last run used; fields that differ from it are marked."""
        used = flat(values)
        self.last = {path: used[path] for path in self._views if path in used}
        self.last_label = label
        self._check()

    def words(self) -> list[str]:
        """The words of ``--hp`` that give these values: the model's name and what differs from it, or every value."""
        whole = self.hyperparameters.values()
        if not self._name:
            return words(whole)
        values = {path: at(whole, path) for path in self._views}
        changed = {path: value for path, value in values.items() if value != self._default(path)}
        return [self._name, *words(changed)]

    def static(self) -> dict[str, Any]:
        """The form as a table, for a saved notebook: a MIME bundle."""
        rows = [(path, self.entered[path], self.last.get(path)) for path in self._views]
        text = "\n".join(f"{path:<24} {_shown(value)}" for path, value, _ in rows)
        head = "".join(
            f"<th>{title}</th>" for title in ("hyperparameter", "value", *(["last run"] if self.last else []))
        )
        body = "".join(
            f"<tr><th>{escape(path)}</th><td>{escape(_shown(value))}</td>"
            + (f"<td>{escape(_shown(last)) if path in self.last else ''}</td>" if self.last else "")
            + "</tr>"
            for path, value, last in rows
        )
        line = f"<p><code>{escape(self.line)}</code></p>" if self.line else ""
        html = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{line}"
        return {"text/plain": f"{text}\n{self.line}".rstrip(), "text/html": html}

    def _ipython_display_(self, **_options: Any) -> None:
        WidgetOutput(self, self.static())

    def _default(self, path: str) -> Any:
        return self._views[path].default

    def _check(self) -> None:
        wrong: dict[str, str] = {}
        values: dict[str, Any] = {}
        for path, view in self._views.items():
            try:
                values[path] = _read(view, self.entered[path])
            except ValueError as error:
                wrong[path] = str(error)
        checked = None
        try:
            checked = self._model(**over_group_defaults(self._model, nested(values)))
        except ValidationError as error:
            wrong = {**messages(error), **wrong}
        self._checked = None if wrong else checked
        now = {} if checked is None else {path: at(checked.values(), path) for path in self._views}
        with self.hold_sync():
            self.errors = wrong
            self.differs = [path for path, value in self.last.items() if now.get(path, self.entered[path]) != value]
            self.line = "" if wrong else f"--hp {shlex.join(self.words())}"

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        match content:
            case {"kind": "enter", "path": str(path), "value": value} if path in self._views:
                self.enter(path, value)
            case {"kind": "defaults"}:
                self.entered = {path: view.default for path, view in self._views.items()}
                self._check()
            case {"kind": "last"}:
                self.entered = {**self.entered, **self.last}
                self._check()
            case {"kind": "cell", "value": int(place)} if 0 <= place < len(self.cells):
                self.cell = place
            case {"kind": "run"} if self._on_run is not None and self._checked is not None and self.cells:
                self._on_run(self.words(), self.cell)
            case {"kind": "close"} if self._on_close is not None:
                on_close, self._on_close = self._on_close, None
                on_close()

    def __repr__(self) -> str:
        return f"{self.title}: {', '.join(f'{path}={_shown(value)}' for path, value in self.entered.items())}"


def _read(view: FieldView, entered: Any) -> Any:
    """What was entered as a value for the model; a page sends numbers as the text that was typed."""
    if not isinstance(entered, str) or view.kind in ("text", "choice"):
        return entered
    if not entered.strip():
        raise ValueError("a value is needed")
    return value_of(entered.strip())


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
