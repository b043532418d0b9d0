// The study: values by trial, parallel coordinates, importance, and a table of the trials with their curves.
import { element } from "./element.js";
import { number } from "./number.js";
import { place, shown } from "./scale.js";

const WIDTH = 400;
const HEIGHT = 190;

function render({ model, el }) {
  const stopping = new Set();
  let stopped = false;
  let marked = null; // the trial whose row is under the pointer
  const title = element("h3", "pai-title");
  const status = element("span", "pai-status", { role: "status" });
  const stop = element("button", "pai-button pai-stop", { type: "button", title: "Stop the whole study" }, "Stop");
  const panels = element("div", "pai-panels");
  const table = element("table", "pai-trials");
  const root = element("div", "pai-study", { role: "region" }, [
    element("div", "pai-header", {}, [element("div", "pai-heading", {}, [title, status]), stop]),
    panels,
    element("div", "pai-scroll", {}, [table]),
  ]);
  el.append(root);
  stop.addEventListener("click", () => {
    stopped = true;
    model.send({ kind: "stop" });
    draw();
  });

  function draw() {
    const study = model.get("study");
    title.textContent = study.name;
    status.textContent = [study.running ? (stopped ? "stopping" : "running") : "finished", model.get("headline")].join(" · ");
    root.dataset.state = study.running ? "running" : "finished";
    root.setAttribute("aria-label", `Study ${study.name}`);
    stop.hidden = !study.running;
    stop.disabled = stopped;
    panels.replaceChildren(byTrial(study), parallel(study), ...(Object.keys(study.importance).length ? [importance(study)] : []));
    rows(study);
    if (marked != null) mark(marked, true);
  }

  function rows(study) {
    const focused = document.activeElement?.dataset?.stop;
    const paths = study.fields.map((field) => field.path);
    const heads = ["trial", "state", "", study.metric, ...paths, "time", ""];
    const head = element("tr", "", {}, heads.map((text) => element("th", "", { scope: "col" }, text)));
    const order = [...study.trials].sort((a, b) => (b.state === "running") - (a.state === "running") || b.number - a.number);
    table.replaceChildren(element("thead", "", {}, [head]), element("tbody", "", {}, order.map((trial) => row(study, trial, paths))));
    if (focused) table.querySelector(`[data-stop="${focused}"]`)?.focus();
  }

  function row(study, trial, paths) {
    const cells = [
      element("th", "", { scope: "row" }, String(trial.number)),
      element("td", "pai-state", { title: trial.error }, trial.error ? `${trial.state}: ${trial.error.slice(0, 40)}` : trial.state),
      element("td", "", {}, [spark(trial.curve)]),
      element("td", "pai-number", {}, trial.value == null ? "" : number(trial.value)),
      ...paths.map((path) => element("td", "pai-number", {}, cell(trial.params[path]))),
      element("td", "pai-number", {}, `${trial.seconds.toFixed(1)} s`),
      element("td", "", {}, trial.state === "running" && study.running ? [stopButton(trial.number)] : []),
    ];
    const made = element("tr", trial.number === study.best ? "pai-best" : "", { "data-trial": String(trial.number), "data-state": trial.state }, cells);
    made.addEventListener("mouseenter", () => mark(trial.number, true));
    made.addEventListener("mouseleave", () => mark(trial.number, false));
    return made;
  }

  function stopButton(trial) {
    const asked = stopping.has(trial);
    const made = element("button", "pai-button pai-stop", { type: "button", "data-stop": String(trial), "aria-label": `Stop trial ${trial}` }, asked ? "Stopping…" : "Stop");
    made.disabled = asked;
    made.addEventListener("click", () => {
      stopping.add(trial);
      model.send({ kind: "stop_trial", number: trial });
      draw();
    });
    return made;
  }

  function mark(trial, on) {
    marked = on ? trial : null;
    for (const node of panels.querySelectorAll(`[data-trial="${trial}"]`)) node.classList.toggle("pai-marked", on);
  }

  let frame = 0;
  const later = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  };
  model.on("change:study", later);
  draw();
  return () => {
    model.off("change:study", later);
    cancelAnimationFrame(frame);
  };
}

// The value of every trial as a point, and the best up to it as a line of steps.
function byTrial(study) {
  const valued = study.trials.filter((trial) => trial.value != null);
  const values = valued.map((trial) => trial.value);
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const most = Math.max(1, study.wanted - 1, ...study.trials.map((trial) => trial.number));
  const x = (trial) => 48 + ((WIDTH - 62) * trial) / most;
  const y = (value) => HEIGHT - 24 - (HEIGHT - 44) * (high > low ? (value - low) / (high - low) : 0.5);
  const better = study.direction === "minimize" ? Math.min : Math.max;
  const drawing = picture(`${study.metric} by trial`);
  if (values.length) for (const [value, at] of [[low, y(low)], [high, y(high)]]) drawing.append(svg("text", { x: 42, y: at + 4, "text-anchor": "end" }, number(value)));
  drawing.append(svg("text", { x: 48, y: HEIGHT - 4 }, "0"), svg("text", { x: WIDTH - 14, y: HEIGHT - 4, "text-anchor": "end" }, String(most)));
  let best = null;
  let path = "";
  for (const trial of valued.filter((one) => one.state === "done")) {
    best = best == null ? trial.value : better(best, trial.value);
    path += path ? `H${x(trial.number)}V${y(best)}` : `M${x(trial.number)} ${y(best)}`;
  }
  if (path) drawing.append(svg("path", { d: `${path}H${x(study.trials.at(-1).number)}`, class: "pai-best-line" }));
  for (const trial of valued) {
    const kind = trial.number === study.best ? "pai-dot pai-dot-best" : `pai-dot pai-dot-${trial.state}`;
    const dot = svg("circle", { cx: x(trial.number), cy: y(trial.value), r: 3.5, class: kind, "data-trial": trial.number });
    dot.append(svg("title", {}, `trial ${trial.number}, ${trial.state}: ${number(trial.value)}`));
    drawing.append(dot);
  }
  return panel(`${study.metric} by trial, and the best so far`, drawing);
}

// One line a trial through its values; the better, the darker.
function parallel(study) {
  const trials = study.trials.filter((trial) => trial.value != null);
  const sign = study.direction === "minimize" ? 1 : -1;
  const order = [...trials].sort((a, b) => sign * (a.value - b.value)).map((trial) => trial.number);
  const values = trials.map((trial) => trial.value);
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const last = { path: study.metric, kind: "float", low, high, log: false, choices: [] };
  const axes = [...study.fields, last];
  const x = (i) => 34 + ((WIDTH - 68) * i) / (axes.length - 1);
  const y = (part) => HEIGHT - 36 - (HEIGHT - 60) * part;
  const drawing = picture("parallel coordinates");
  axes.forEach((field, i) => {
    const options = choices(field);
    const [bottom, top] = options.length ? [options[0], options.at(-1)] : [field.low, field.high];
    const name = field.path.length > 12 ? `${field.path.slice(0, 11)}…` : field.path;
    drawing.append(
      svg("line", { x1: x(i), x2: x(i), y1: y(0), y2: y(1), class: "pai-axis" }),
      svg("text", { x: x(i), y: HEIGHT - 4, "text-anchor": "middle", class: "pai-axis-name" }, name),
      svg("text", { x: x(i), y: y(0) + 13, "text-anchor": "middle" }, cell(bottom)),
      svg("text", { x: x(i), y: y(1) - 5, "text-anchor": "middle" }, cell(top)),
    );
  });
  for (const trial of [...trials].sort((a, b) => order.indexOf(b.number) - order.indexOf(a.number))) {
    const points = axes.map((field, i) => `${x(i)} ${y(field === last ? part(field, trial.value) : part(field, trial.params[field.path]))}`);
    const opacity = 0.85 - 0.7 * (order.indexOf(trial.number) / Math.max(1, order.length - 1));
    const kind = trial.number === study.best ? "pai-line-best" : trial.state === "done" ? "" : "pai-line-other";
    const line = svg("path", { d: `M${points.join("L")}`, class: `pai-trial-line ${kind}`, "data-trial": trial.number, opacity: kind === "pai-line-best" ? 1 : opacity });
    line.append(svg("title", {}, `trial ${trial.number}: ${number(trial.value)}`));
    drawing.append(line);
  }
  return panel("Hyperparameters of each trial", drawing);
}

function importance(study) {
  const entries = Object.entries(study.importance);
  const list = element("div", "pai-bars", {}, entries.flatMap(([name, share]) => [
    element("span", "", {}, name),
    element("span", "pai-bar", { style: `--share: ${(100 * share).toFixed(1)}%` }),
    element("span", "pai-number", {}, `${Math.round(100 * share)}%`),
  ]));
  return panel("Importance (PED-ANOVA)", list);
}

function spark(curve) {
  const finite = curve.filter((value) => value != null);
  const drawing = svg("svg", { class: "pai-spark", viewBox: "0 0 80 18", width: 80, height: 18, "aria-hidden": "true" });
  if (finite.length < 2) return drawing;
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const points = curve.flatMap((value, i) => (value == null ? [] : [`${(78 * i) / (curve.length - 1) + 1} ${16 - 14 * (high > low ? (value - low) / (high - low) : 0.5)}`]));
  drawing.append(svg("path", { d: `M${points.join("L")}` }));
  return drawing;
}

const choices = (field) => (field.kind === "bool" ? [false, true] : field.choices);

function part(field, value) {
  const options = choices(field);
  if (options.length) return Math.max(0, options.indexOf(value)) / Math.max(1, options.length - 1);
  return field.high > field.low ? place(field, value) : 0.5;
}

const cell = (value) => (typeof value === "number" ? number(value) : shown(value));

function panel(text, drawing) {
  return element("section", "pai-panel", { "aria-label": text }, [element("div", "pai-panel-head", {}, text), drawing]);
}

function picture(label) {
  return svg("svg", { class: "pai-drawing", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
}

function svg(tag, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

export default { render };
