// The widget: a header with the switches, and one panel per metric. State comes from the model, redrawn once a frame.
import { Panel } from "./panel.js";
import { element } from "./element.js";

function render({ model, el }) {
  const view = { log: false, byRank: false, stopping: false };
  const sync = `pai-${Math.random().toString(36).slice(2)}`;
  const panels = new Map();

  const title = element("h3", "pai-title");
  const status = element("span", "pai-status");
  const log = toggle("Log scale", "Show values on a logarithmic scale");
  const byRank = toggle("By rank", "Show one line per rank instead of their mean");
  const stop = element("button", "pai-button pai-stop", { type: "button", title: "Stop this run" }, "Stop");
  const header = element("div", "pai-header", {}, [
    element("div", "pai-heading", {}, [title, status]),
    element("div", "pai-switches", {}, [byRank, log, stop]),
  ]);
  const grid = element("div", "pai-grid");
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
  const root = element("div", "pai-curves", { role: "region", "aria-label": "Training curves" }, [header, grid, values]);
  el.append(root);

  log.addEventListener("click", () => {
    view.log = !view.log;
    draw();
  });
  byRank.addEventListener("click", () => {
    view.byRank = !view.byRank;
    model.send({ kind: "by_rank", value: view.byRank });
    draw();
  });
  stop.addEventListener("click", () => {
    view.stopping = true;
    model.send({ kind: "stop" });
    draw();
  });

  function draw() {
    const described = model.get("panels");
    const running = model.get("running");
    const points = float64(model.get("data"));
    title.textContent = model.get("title") || "Metrics";
    status.textContent = [view.stopping && running ? "stopping" : running ? "running" : "finished", model.get("status")]
      .filter(Boolean)
      .join(" · ");
    root.dataset.state = running ? "running" : "finished";
    root.setAttribute("aria-label", `Training curves: ${title.textContent}`);
    log.setAttribute("aria-pressed", String(view.log));
    byRank.setAttribute("aria-pressed", String(view.byRank));
    byRank.hidden = !described.some((panel) => panel.ranks > 1);
    stop.hidden = !(running && model.get("can_stop"));
    stop.disabled = view.stopping;
    stop.textContent = view.stopping ? "Stopping…" : "Stop";
    for (const description of described) {
      if (!panels.has(description.name)) panels.set(description.name, new Panel(grid, description.name, sync));
      panels.get(description.name).show(description, points, view.log);
    }
    grid.dataset.count = String(panels.size);
    table.replaceChildren(
      ...described.map(({ name, summary }) =>
        element("tr", "", {}, [
          element("th", "", { scope: "row" }, name),
          ...summary.map((value) => element("td", "", {}, value)),
        ]),
      ),
    );
  }

  let frame = 0;
  const later = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  };
  const names = ["change:version", "change:running", "change:title", "change:can_stop"];
  for (const name of names) model.on(name, later);

  // Canvas colours do not follow style sheets by themselves.
  const theme = new MutationObserver(() => panels.forEach((panel) => panel.recolour()));
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "class"] });
  draw();

  return () => {
    for (const name of names) model.off(name, later);
    cancelAnimationFrame(frame);
    theme.disconnect();
    panels.forEach((panel) => panel.destroy());
  };
}

function toggle(text, title) {
  return element("button", "pai-button", { type: "button", title, "aria-pressed": "false" }, text);
}

// A copy, because a comm's buffer need not start at a multiple of eight bytes.
function float64(view) {
  if (!view || !view.byteLength) return new Float64Array(0);
  return new Float64Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

export default { render };
