// The latest runs, each with a small curve and what can be done with it.
import { element } from "./element.js";
import { button, panel, replace, row, table } from "./live.js";
import { duration, spark } from "./spark.js";

function render({ model, el }) {
  let doubted = ""; // the run whose deletion is to be confirmed
  const act = (kind, id) => model.send({ kind, id });

  const draw = ({ runs = [], log = {} }, body) => {
    const rows = runs.flatMap((run) => {
      const opened = log.id === run.id;
      const one = row(
        [run.id, run.name, run.model, element("span", "pai-state", { "data-state": run.state, title: run.error }, run.state), run.started, duration(run.seconds), spark(run), actions(run, opened)],
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

export default { render };
