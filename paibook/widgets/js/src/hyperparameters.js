// The form: one row per hyperparameter. What is entered goes to the model object, which answers with what is wrong.
import { element } from "./element.js";
import { bounded, outside, place, shown, valueAt } from "./scale.js";

const STEPS = 1000;

function render({ model, el }) {
  const rows = new Map();
  const title = element("h3", "pai-title");
  const status = element("span", "pai-status", { role: "status" });
  const body = element("div", "pai-fields");
  const overall = element("div", "pai-error", { role: "alert" });
  const cells = element("select", "pai-input", { "aria-label": "Cell to run" });
  const run = button("Run with these", "Run the chosen cell with these values", "pai-run");
  const last = button("As last run", "Take the values of the last run");
  const defaults = button("Defaults", "Take the model's defaults");
  const close = button("Keep as a table", "Replace the form by a table of its values, which stays in the saved notebook");
  const note = element("div", "pai-result", { role: "status" });
  const line = element("code", "pai-line", { "aria-label": "The same on a magic's line" });
  const copy = button("Copy", "Copy the line");
  const root = element("div", "pai-form", { role: "form" }, [
    element("div", "pai-header", {}, [element("div", "pai-heading", {}, [title, status]), element("div", "pai-switches", {}, [last, defaults, close])]),
    body,
    overall,
    element("div", "pai-footer", {}, [run, cells]),
    note,
    element("div", "pai-footer", {}, [line, copy]),
  ]);
  el.append(root);

  last.addEventListener("click", () => model.send({ kind: "last" }));
  defaults.addEventListener("click", () => model.send({ kind: "defaults" }));
  close.addEventListener("click", () => model.send({ kind: "close" }));
  run.addEventListener("click", () => {
    rows.forEach((row) => row.now());
    model.send({ kind: "run" });
  });
  cells.addEventListener("change", () => model.send({ kind: "cell", value: Number(cells.value) }));
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(line.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(line); // without the right to the clipboard, the text is at least selected
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });

  const groups = new Map([["", body]]);
  for (const field of model.get("fields")) {
    const row = new Row(field, (value) => model.send({ kind: "enter", path: field.path, value }));
    rows.set(field.path, row);
    groupOf(field.path.split(".").slice(0, -1), groups).append(row.node);
  }

  function draw() {
    const errors = model.get("errors");
    const differs = new Set(model.get("differs"));
    const previous = model.get("last");
    title.textContent = model.get("title");
    root.setAttribute("aria-label", `Hyperparameters: ${title.textContent}`);
    const count = Object.keys(errors).length;
    const label = model.get("last_label");
    const compared = label ? `${differs.size ? `${differs.size} differ${differs.size === 1 ? "s" : ""} from` : "same as"} ${label}` : "";
    status.textContent = [model.get("state"), count ? `${count} to correct` : "", compared].filter(Boolean).join(" · ");
    for (const [path, row] of rows) row.show(model.get("entered")[path], errors[path], previous[path], path in previous, differs.has(path));
    overall.textContent = Object.entries(errors)
      .filter(([path]) => !rows.has(path))
      .map(([path, text]) => (path ? `${path}: ${text}` : text))
      .join("; ");
    const choices = model.get("cells");
    if (cells.dataset.shown !== JSON.stringify(choices)) {
      cells.replaceChildren(...choices.map((text, i) => element("option", "", { value: String(i) }, text)));
      cells.dataset.shown = JSON.stringify(choices);
    }
    cells.value = String(model.get("cell"));
    cells.hidden = run.hidden = choices.length === 0;
    run.disabled = count > 0 || model.get("state") !== "";
    note.textContent = model.get("note");
    last.hidden = Object.keys(previous).length === 0;
    close.hidden = !model.get("can_close");
    line.textContent = model.get("line");
    line.parentElement.hidden = !line.textContent;
  }

  const names = ["entered", "errors", "last", "last_label", "differs", "line", "cells", "cell", "state", "note", "title", "can_close"].map((name) => `change:${name}`);
  let frame = 0;
  const later = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  };
  for (const name of names) model.on(name, later);
  draw();
  return () => {
    for (const name of names) model.off(name, later);
    cancelAnimationFrame(frame);
  };
}

// One hyperparameter: name, control, what the last run used, and what is wrong with it.
class Row {
  constructor(field, send) {
    this.field = field;
    this.send = send;
    this.id = `pai-${Math.random().toString(36).slice(2)}`;
    this.error = element("div", "pai-error", { id: `${this.id}-error`, role: "alert" });
    this.before = element("button", "pai-before", { type: "button" });
    this.before.addEventListener("click", () => send(this.previous));
    const control = this.control();
    const name = element("label", "pai-name", { for: this.id, title: field.description }, field.path.split(".").at(-1));
    this.node = element("div", "pai-field", { "data-path": field.path }, [name, control, this.before, this.error]);
    if (field.description) this.node.insertBefore(element("div", "pai-hint", {}, field.description), this.error);
  }

  control() {
    const { field } = this;
    if (field.kind === "bool") {
      this.input = element("input", "pai-check", { type: "checkbox", role: "switch", id: this.id });
      this.input.addEventListener("change", () => this.send(this.input.checked));
      return element("div", "pai-control", {}, [this.input]);
    }
    if (field.kind === "choice") {
      this.input = element("select", "pai-input", { id: this.id }, field.choices.map((value, i) => element("option", "", { value: String(i) }, String(value))));
      this.input.addEventListener("change", () => this.send(field.choices[Number(this.input.value)]));
      return element("div", "pai-control", {}, [this.input]);
    }
    this.input = element("input", "pai-input", { type: "text", id: this.id, spellcheck: "false", autocomplete: "off" });
    this.input.addEventListener("input", () => {
      this.tell(outside(field, this.input.value)); // at once, also while the kernel is busy
      this.later(this.input.value, 150);
    });
    this.input.addEventListener("change", () => this.now());
    if (!bounded(field)) return element("div", "pai-control", {}, [this.input]);
    this.slider = element("input", "pai-slider", { type: "range", min: "0", max: String(STEPS), step: "1", "aria-label": `${field.path}, slider` });
    this.slider.addEventListener("input", () => {
      const value = valueAt(field, this.slider.value / STEPS);
      this.input.value = shown(value);
      this.slider.setAttribute("aria-valuetext", this.input.value);
      this.tell("");
      this.later(value, 60);
    });
    const ends = element("div", "pai-ends", { "aria-hidden": "true" }, [
      element("span", "", {}, shown(field.low)),
      element("span", "", {}, field.log ? "log" : ""),
      element("span", "", {}, shown(field.high)),
    ]);
    return element("div", "pai-control pai-ranged", {}, [element("div", "pai-track", {}, [this.slider, ends]), this.input]);
  }

  // Sent when the typing pauses; until then the state knows nothing of it, and must not be drawn over it.
  later(value, milliseconds) {
    clearTimeout(this.timer);
    this.unsent = value;
    this.timer = setTimeout(() => this.now(), milliseconds);
  }

  now() {
    clearTimeout(this.timer);
    if (this.unsent !== undefined) this.send(this.unsent);
    this.unsent = undefined;
  }

  show(value, error, previous, known, differs) {
    const { field, input } = this;
    this.showLast(previous, known, differs);
    if (this.unsent !== undefined) return;
    if (field.kind === "bool") input.checked = value === true || value === "true";
    else if (field.kind === "choice") input.value = String(field.choices.findIndex((option) => option === value));
    else if (document.activeElement !== input) input.value = shown(value, field.kind);
    if (this.slider && document.activeElement !== this.slider) {
      this.slider.value = String(Math.round(STEPS * place(field, Number(value))));
      this.slider.setAttribute("aria-valuetext", shown(value));
    }
    this.tell(error ?? "");
  }

  showLast(previous, known, differs) {
    this.previous = previous;
    this.before.textContent = known ? `last ${shown(previous, this.field.kind)}` : "";
    this.before.title = known ? "Take the last run's value" : "";
    this.before.hidden = !known;
    this.node.classList.toggle("pai-differs", differs);
  }

  tell(error) {
    if (this.error.textContent !== error) this.error.textContent = error;
    this.node.classList.toggle("pai-wrong", Boolean(error));
    this.input.setAttribute("aria-invalid", String(Boolean(error)));
    if (error) this.input.setAttribute("aria-describedby", this.error.id);
    else this.input.removeAttribute("aria-describedby");
  }
}

function groupOf(path, groups) {
  const key = path.join(".");
  if (!groups.has(key)) {
    const made = element("fieldset", "pai-group", { "data-group": key }, [element("legend", "", {}, path.at(-1))]);
    groupOf(path.slice(0, -1), groups).append(made);
    groups.set(key, made);
  }
  return groups.get(key);
}

function button(text, title, className = "") {
  return element("button", `pai-button ${className}`, { type: "button", title }, text);
}

export default { render };
