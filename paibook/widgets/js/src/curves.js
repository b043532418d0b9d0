// The widget: a header with the switches, and one panel per group of metrics. State comes from the model, redrawn once
// a frame; how it is looked at is in the model too, so that two views and a reloaded page agree.
import { download } from "./download.js";
import { element, toggle } from "./element.js";
import { Panel } from "./panel.js";

const MANY_NAMES = 8;
const FORMATS = ["png", "svg", "csv", "parquet"];

function render({ model, el }) {
  const view = { stopping: false, pressed: 0, exporting: false };
  const sync = `pai-${Math.random().toString(36).slice(2)}`;
  const panels = new Map();

  const title = element("h3", "pai-title");
  const status = element("span", "pai-status");
  const said = element("span", "pai-said", { role: "status", "aria-live": "polite" });
  const log = toggle("Log scale", "Show values on a logarithmic scale");
  const byRank = toggle("By rank", "Show one line per rank instead of their mean");
  const axis = element("select", "pai-button", { "aria-label": "Horizontal axis" });
  const smooth = element("input", "pai-smooth", { type: "range", min: 0, max: 0.99, step: 0.01, "aria-label": "Smoothing" });
  const wide = element("button", "pai-button", { type: "button", title: "Show all steps again (Escape)" }, "Zoom out");
  const filter = element("input", "pai-filter", { type: "search", placeholder: "Filter metrics", "aria-label": "Filter metrics by name" });
  const save = element("select", "pai-button", { "aria-label": "Export" }, [
    element("option", "", { value: "" }, "Export…"),
    ...FORMATS.map((format) => element("option", "", { value: format }, format === "parquet" ? "Parquet" : format.toUpperCase())),
  ]);
  const noteText = element("input", "pai-note-text", { type: "text", placeholder: "Note at this step", "aria-label": "Note at this step", maxlength: 200 });
  const noteButton = element("button", "pai-button", { type: "submit" }, "Note");
  const noting = element("form", "pai-noting", {}, [noteText, noteButton]);
  const stop = element("button", "pai-button pai-stop", { type: "button", title: "Stop this run" }, "Stop");
  const header = element("div", "pai-header", {}, [
    element("div", "pai-heading", {}, [title, status, said]),
    element("div", "pai-switches", {}, [
      filter,
      element("label", "pai-smoothing", { title: "Exponential moving average" }, ["Smooth", smooth]),
      axis,
      byRank,
      log,
      wide,
      save,
      noting,
      stop,
    ]),
  ]);
  const grid = element("div", "pai-grid");
  const notes = element("ul", "pai-notes", { "aria-label": "Notes" });
  const table = element("tbody");
  const values = element("details", "pai-values", {}, [
    element("summary", "", {}, "Values"),
    element("table", "", { "aria-live": "off" }, [
      element("thead", "", {}, [
        element("tr", "", {}, ["metric", "first", "last", "best", "step"].map((name) => element("th", "", { scope: "col" }, name))),
      ]),
      table,
    ]),
  ]);
  const root = element("div", "pai-curves", { role: "region", "aria-label": "Training curves" }, [header, grid, notes, values]);
  // JupyterLab's own shortcuts must not see what is typed into a field.
  root.dataset.lmSuppressShortcuts = "true";
  el.append(root);

  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  log.addEventListener("click", () => set("log", !model.get("log")));
  byRank.addEventListener("click", () => set("by_rank", !model.get("by_rank")));
  axis.addEventListener("change", () => set("axis", axis.value));
  smooth.addEventListener("input", () => set("smoothing", Number(smooth.value)));
  wide.addEventListener("click", () => set("zoom", []));
  let typing = 0;
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => set("filter", filter.value.trim()), 250);
  });
  save.addEventListener("change", () => {
    if (!save.value) return;
    said.textContent = `exporting ${save.value}…`;
    view.exporting = true;
    model.send({ kind: "export", format: save.value });
    save.value = "";
  });
  noting.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!noteText.value.trim()) return noteText.focus();
    view.pressed = performance.now();
    model.send({ kind: "note", text: noteText.value });
  });
  stop.addEventListener("click", () => {
    view.stopping = true;
    view.pressed = performance.now();
    model.send({ kind: "stop" });
    draw();
  });

  function receive(content, buffers) {
    if (["noted", "stopping"].includes(content.kind) && view.pressed) {
      root.dataset.reaction = String(Math.round(performance.now() - view.pressed));
      view.pressed = 0;
    }
    if (content.kind === "noted") noteText.value = "";
    // Every view of the model hears of it; the one that asked saves the file.
    if (["failed", "exported"].includes(content.kind) && !view.exporting) return;
    if (["failed", "exported"].includes(content.kind)) view.exporting = false;
    if (content.kind === "failed") said.textContent = content.text;
    if (content.kind === "exported") {
      said.textContent = `exported ${content.format}`;
      download(`${model.get("title") || "metrics"}.${content.format}`, content.type, buffers[0]);
    }
  }

  const actions = {
    zoom: (low, high) => set("zoom", low == null ? [] : [low, high]),
    say: (text) => (said.textContent = text),
    overlay: (group, name) => set("overlays", overlaid(model.get("overlays"), group, name)),
  };

  function draw() {
    const described = model.get("panels");
    const running = model.get("running");
    const points = float64(model.get("data"));
    const zoom = model.get("zoom");
    title.textContent = model.get("title") || "Metrics";
    status.textContent = [view.stopping && running ? "stopping" : running ? "running" : "finished", model.get("status")]
      .filter(Boolean)
      .join(" · ");
    root.dataset.state = running ? "running" : "finished";
    root.setAttribute("aria-label", `Training curves: ${title.textContent}`);
    log.setAttribute("aria-pressed", String(model.get("log")));
    byRank.setAttribute("aria-pressed", String(model.get("by_rank")));
    byRank.hidden = !described.some((panel) => panel.ranks > 1);
    wide.hidden = zoom.length !== 2;
    filter.hidden = model.get("names").length < MANY_NAMES && !model.get("filter");
    if (document.activeElement !== filter) filter.value = model.get("filter");
    if (document.activeElement !== smooth) smooth.value = model.get("smoothing");
    options(axis, model.get("axes"), model.get("axis"));
    noting.hidden = !running;
    stop.hidden = !(running && model.get("can_stop"));
    stop.disabled = view.stopping;
    stop.textContent = view.stopping ? "Stopping…" : "Stop";
    const look = {
      // What the points are placed on, which follows the chosen axis a moment later.
      axis: described[0]?.axis ?? model.get("axis"),
      log: model.get("log"),
      smoothing: model.get("smoothing"),
      zoom: zoom.length === 2 ? zoom : null,
      notes: model.get("notes"),
      names: model.get("names"),
    };
    root.dataset.axis = look.axis;
    const shown = new Set(described.map((description) => description.name));
    for (const [name, panel] of panels) {
      if (shown.has(name)) continue;
      panel.destroy();
      panels.delete(name);
    }
    for (const description of described) {
      if (!panels.has(description.name)) panels.set(description.name, new Panel(grid, description.name, sync, actions));
      panels.get(description.name).show(description, points, look);
    }
    // A filter taken back brings panels in again behind others; appending what is there moves it.
    const order = described.map((description) => panels.get(description.name).node);
    if (order.some((node, i) => grid.children[i] !== node)) grid.append(...order);
    grid.dataset.count = String(panels.size);
    notes.replaceChildren(...look.notes.map((note) => element("li", "", {}, `${look.axis} ${Number(note.x.toPrecision(6))}: ${note.text}`)));
    table.replaceChildren(
      ...described.flatMap(({ rows }) =>
        rows.map(([name, ...summary]) =>
          element("tr", "", {}, [element("th", "", { scope: "row" }, name), ...summary.map((value) => element("td", "", {}, value))]),
        ),
      ),
    );
  }

  let frame = 0;
  const later = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  };
  const names = ["version", "running", "title", "can_stop", "log", "smoothing", "zoom", "by_rank"].map((name) => `change:${name}`);
  for (const name of names) model.on(name, later);
  model.on("msg:custom", receive);

  // Canvas colours do not follow style sheets by themselves.
  const theme = new MutationObserver(() => panels.forEach((panel) => panel.recolour()));
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
  draw();

  return () => {
    for (const name of names) model.off(name, later);
    model.off("msg:custom", receive);
    cancelAnimationFrame(frame);
    theme.disconnect();
    panels.forEach((panel) => panel.destroy());
  };
}

// Puts `name` into the panel of `group`, or, where it is there already, takes it out.
function overlaid(overlays, group, name) {
  const without = overlays.map((one) => one.filter((other) => other !== name));
  if (!group.includes(name)) {
    const own = without.find((one) => one.includes(group[0]));
    if (own) own.push(name);
    else without.push([...group, name]);
  }
  return without.filter((one) => one.length > 1);
}

function options(select, values, chosen) {
  if (select.dataset.values !== String(values)) {
    select.dataset.values = String(values);
    select.replaceChildren(...values.map((value) => element("option", "", { value }, `by ${value}`)));
  }
  select.value = chosen;
}

// A copy, because a comm's buffer need not start at a multiple of eight bytes.
function float64(view) {
  if (!view || !view.byteLength) return new Float64Array(0);
  return new Float64Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

export default { render };
