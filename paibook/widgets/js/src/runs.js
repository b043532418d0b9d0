// The latest runs, each with a small curve and what can be done with it.
import { element } from "./element.js";
import { button, panel, replace, row, table } from "./live.js";

const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 96, height: 20 };

function render({ model, el }) {
  let doubted = ""; // the run whose deletion is to be confirmed
  const act = (kind, id) => model.send({ kind, id });

  const draw = ({ runs = [], log = {} }, body) => {
    const rows = runs.flatMap((run) => {
      const opened = log.id === run.id;
      const one = row(
        [run.id, run.name, run.model, element("span", "pai-state", { "data-state": run.state, title: run.error }, run.state), run.started, duration(run.seconds), curve(run), actions(run, opened)],
        { "data-run": run.id },
      );
      if (!opened) return [one];
      return [one, element("tr", "", {}, [element("td", "", { colspan: "8" }, [element("pre", "pai-log", { tabindex: "0" }, log.text)])])];
    });
    replace(body, [runs.length ? table(["run", "name", "model", "state", "started", "time", "curve", ""], rows) : element("p", "pai-none", {}, "no runs yet")]);
    return `${runs.length} run${runs.length === 1 ? "" : "s"}`;
  };

  const actions = (run, opened) => {
    const add = (kind, text, title, press, pressed = null) => {
      const node = button(text, title, press, pressed);
      node.dataset.key = `${kind}-${run.id}`;
      return node;
    };
    const parts = [add("log", "Log", "What it printed", () => act("log", run.id), opened)];
    if (run.can_stop) parts.push(add("stop", "Stop", "Stop this run", () => act("stop", run.id)));
    if (run.can_resume) parts.push(add("resume", "Resume", "Complete it from its finished tasks", () => act("resume", run.id)));
    if (run.state !== "running") {
      const sure = doubted === run.id;
      const press = () => {
        doubted = sure ? "" : run.id;
        if (sure) act("delete", run.id);
        else view.redraw();
      };
      parts.push(add("delete", sure ? "Really delete" : "Delete", "Forget this run and its files", press));
    }
    return element("div", "pai-actions", {}, parts);
  };

  let view = { redraw() {} };
  view = panel(model, el, "Runs", draw);
  return () => view.end();
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function curve({ curve: values, metric }) {
  if (values.length < 2) return "";
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (i) => 1 + (i / (values.length - 1)) * (SIZE.width - 2);
  const y = (value) => SIZE.height - 2 - (high > low ? (value - low) / (high - low) : 0.5) * (SIZE.height - 4);
  const picture = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ class: "pai-spark", ...SIZE, role: "img", "aria-label": `${metric}: ${values[0]} to ${values.at(-1)}` })) picture.setAttribute(name, value);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" "));
  picture.append(line);
  return element("span", "", { title: metric }, [picture]);
}

export default { render };
