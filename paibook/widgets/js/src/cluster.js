// The workers and ranks of a cluster.
import { element } from "./element.js";
import { bar, bytes, panel, replace, row, table } from "./live.js";

function render({ model, el }) {
  const draw = ({ title, workers = [], ranks = [] }, body) => {
    const parts = [];
    if (ranks.length) {
      parts.push(
        table(
          ["rank", "state", "host", "process", "memory", "GPUs", "works on"],
          ranks.map((rank) =>
            row([`${rank.role} ${rank.rank}`, state(rank.state), rank.host, String(rank.pid || ""), bytes(rank.memory), rank.cards.join(", "), rank.work], {
              "data-rank": `${rank.role} ${rank.rank}`,
            }),
          ),
        ),
      );
    }
    if (workers.length) {
      parts.push(
        element("h4", "", {}, "Workers"),
        table(
          ["worker", "memory", "tasks running", "waiting"],
          workers.map((worker) => row([worker.address, memory(worker), String(worker.running), String(worker.waiting)])),
        ),
      );
    }
    replace(body, parts);
    return title;
  };
  const view = panel(model, el, "Cluster", draw);
  return () => view.end();
}

function memory({ address, memory, limit }) {
  return limit ? bar(memory / limit, `${bytes(memory)} of ${bytes(limit)}`, `memory of ${address}`) : bytes(memory);
}

function state(text) {
  return element("span", "pai-state", { "data-state": text }, text);
}

export default { render };
