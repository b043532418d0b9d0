// Cards with memory, load and holders, and for each rank a row of switches that picks its cards.
import { cells } from "./cell_options.js";
import { element } from "./element.js";
import { bar, button, bytes, panel, replace, row, table } from "./live.js";

function render({ model, el }) {
  let said = "";
  let chosen = 0;
  const pick = (picks) => {
    said = "";
    model.set("picks", picks);
    model.save_changes();
    view.redraw();
  };

  const draw = ({ cards = [], absent }, body) => {
    if (!cards.length) {
      replace(body, [element("p", "pai-none", {}, absent), element("p", "pai-muted", {}, "Cells run on the CPU; with --cpu-fallback those that ask for GPUs do too.")]);
      return "GPUs";
    }
    replace(body, [
      table(
        ["GPU", "name", "memory", "load", "held by", "processes"],
        cards.map((card) =>
          row(
            [
              card.label,
              card.name,
              card.gone ? "no longer answers" : bar((card.used ?? 0) / card.total, `${bytes(card.used)} of ${bytes(card.total)}`, `memory of GPU ${card.label}`),
              card.load == null ? "" : bar(card.load / 100, `${card.load}%`, `load of GPU ${card.label}`),
              card.holders.join(", ") || "nobody",
              String(card.processes),
            ],
            { "data-card": card.label, ...(card.gone ? { class: "pai-gone" } : {}) },
          ),
        ),
      ),
      ...picker(cards),
    ]);
    return `${cards.length} GPU${cards.length > 1 ? "s" : ""}`;
  };

  const picker = (cards) => {
    const picks = model.get("picks");
    const rows = picks.map((mine, rank) =>
      element("div", "pai-pick", { role: "group", "aria-label": `cards of rank ${rank}` }, [
        element("span", "pai-rank", {}, `rank ${rank}`),
        ...cards.map((card) => {
          const on = mine.includes(card.label);
          const next = on ? mine.filter((label) => label !== card.label) : [...mine, card.label];
          const switched = button(card.label, `GPU ${card.label} for rank ${rank}`, () => pick(picks.with(rank, next)), on);
          switched.dataset.key = `pick-${rank}-${card.label}`;
          switched.disabled = card.gone;
          return switched;
        }),
      ]),
    );
    const add = button("Add rank", "Pick cards for one rank more", () => pick([...picks, [cards[picks.length % cards.length].label]]));
    const remove = button("Remove rank", "Pick for one rank less", () => pick(picks.slice(0, -1)));
    add.dataset.key = "add";
    remove.dataset.key = "remove";
    remove.disabled = !picks.length;
    return [
      element("h4", "", {}, "Cards of each rank"),
      ...rows,
      element("div", "pai-actions", {}, [add, remove]),
      ...(picks.length ? [outcome()] : []),
    ];
  };

  // The words as they go into a cell, and the cells that can take them.
  const outcome = () => {
    const words = model.get("words");
    if (!words) return element("div", "pai-muted", {}, "every rank needs a card, and as many as the others");
    const there = cells();
    const copy = button("Copy", "Copy these options", () => {
      navigator.clipboard?.writeText(words);
      say("copied");
    });
    copy.dataset.key = "copy";
    const parts = [element("code", "pai-words", {}, words), copy];
    if (there.length) {
      const choice = element("select", "pai-choice", { "aria-label": "cell" }, there.map((cell, i) => element("option", "", { value: String(i) }, cell.text.slice(0, 60))));
      choice.value = String(Math.min(chosen, there.length - 1));
      choice.dataset.key = "choice";
      choice.addEventListener("change", () => (chosen = Number(choice.value)));
      const write = button("Write into cell", "Put these options into the cell's first line", () => {
        const target = cells()[Number(choice.value)];
        target?.write(words);
        say(target ? "written; run the cell to use them" : "that cell is out of sight: copy the options");
      });
      write.dataset.key = "write";
      parts.push(choice, write);
    }
    parts.push(element("span", "pai-muted", { role: "status" }, said));
    return element("div", "pai-actions", {}, parts);
  };
  const say = (text) => {
    said = text;
    view.redraw();
  };

  let view = { redraw() {} };
  view = panel(model, el, "GPUs", draw);
  return () => view.end();
}

export default { render };
