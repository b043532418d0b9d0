// Scheduled jobs with their next fire times, and the latest runs, each with the curve of what its notebook trains.
import { element } from "./element.js";
import { button, panel, replace, row, table } from "./live.js";
import { number } from "./number.js";
import { duration, spark } from "./spark.js";

function render({ model, el }) {
  const act = (kind, id) => model.send({ kind, id });
  const add = (kind, id, text, title, pressed = null) => {
    const node = button(text, title, () => act(kind, id), pressed);
    node.dataset.key = `${kind}-${id}`;
    return node;
  };

  const draw = ({ jobs = [], runs = [], log = {} }, body) => {
    const known = jobs.map((job) =>
      row([job.name, element("span", "", { title: job.notebook }, job.notebook), job.when, next(job), latest(job), add("run", job.name, "Run now", "Run this job once, now")], { "data-job": job.name }),
    );
    const lines = runs.flatMap((run) => {
      const one = row(
        [element("span", "", { title: run.id }, [run.job, " ", element("span", "pai-muted", {}, run.id.slice(-6))]), state(run), run.started, run.started ? duration(run.seconds) : "", run.cell, curve(run), actions(run, log.id === run.id)],
        { "data-run": run.id },
      );
      if (log.id !== run.id) return [one];
      const parts = [element("pre", "pai-log", { tabindex: "0" }, log.text)];
      if (run.followed) parts.push(element("p", "pai-muted", {}, ["its curves: ", element("code", "pai-words", {}, `%pai_runs attach ${run.id.slice(-6)}`)]));
      return [one, element("tr", "", {}, [element("td", "", { colspan: "7" }, parts)])];
    });
    replace(body, [
      jobs.length ? table(["job", "notebook", "runs", "next", "latest", ""], known) : element("p", "pai-none", {}, "no jobs are kept yet: %pai_schedule keeps one"),
      element("h4", "", {}, "Latest runs"),
      runs.length ? table(["run", "state", "started", "time", "cell", "curve", ""], lines) : element("p", "pai-none", {}, "none yet"),
    ]);
    return `${jobs.length} job${jobs.length === 1 ? "" : "s"}`;
  };

  const actions = (run, opened) => {
    const parts = [add("log", run.id, "Log", "What its cells printed", opened)];
    if (run.can_stop) parts.push(add("stop", run.id, "Stop", "Stop this run and its processes"));
    if (run.can_rerun) parts.push(add("rerun", run.id, "Rerun", "Run the notebook again as it was, with the same parameters"));
    return element("div", "pai-actions", {}, parts);
  };

  const view = panel(model, el, "Jobs", draw);
  return () => view.end();
}

function next({ next: moment, left }) {
  return moment ? element("span", "", {}, [`${moment} `, element("span", "pai-muted", {}, `in ${left}`)]) : "";
}

function latest({ runs }) {
  const dots = runs.map((run) => element("span", "pai-dot", { "data-state": run.state, title: `${run.id}: ${run.state}${run.error ? `: ${run.error}` : ""}` }));
  const words = runs.length ? runs.map((run) => run.state).join(", ") : "never run";
  return element("span", "pai-dots", { role: "img", "aria-label": words }, dots.length ? dots : words);
}

function state(run) {
  const again = run.attempt > 1 ? `, attempt ${run.attempt}` : "";
  return element("span", "pai-state", { "data-state": run.state, title: run.error }, run.state + again);
}

function curve(run) {
  const picture = spark(run);
  if (!picture) return run.metric;
  return element("span", "pai-course", {}, [picture, element("span", "pai-muted", {}, `${run.metric} ${number(run.curve.at(-1))}`)]);
}

export default { render };
