// The cell's code with numbered lines; those that a picture says somebody is at are marked, and who it is stands beside.
import { element } from "./element.js";

const NAMED = 3; // of those at one line

export class Code {
  constructor() {
    this.lines = [];
    this.list = element("ol", "pai-lines");
    this.node = element("div", "pai-code", { tabindex: "0", role: "group", "aria-label": "The cell's code" }, [this.list]);
  }

  show(source) {
    this.lines = source ? source.trimEnd().split("\n").map((text) => element("li", "", {}, [element("code", "", {}, text || " ")])) : [];
    this.list.replaceChildren(...this.lines);
    this.node.hidden = !this.lines.length;
  }

  // From labels such as "rank 1" to numbers of lines, from 1.
  mark(places) {
    const at = new Map();
    for (const [label, line] of Object.entries(places)) at.set(line, [...(at.get(line) ?? []), label]);
    let top = null;
    this.lines.forEach((node, i) => {
      const labels = at.get(i + 1) ?? [];
      node.querySelector(".pai-at")?.remove();
      node.classList.toggle("pai-marked", labels.length > 0);
      if (!labels.length) return node.removeAttribute("aria-current");
      top ??= node;
      const more = labels.length > NAMED ? ` +${labels.length - NAMED}` : "";
      node.setAttribute("aria-current", "true");
      node.append(element("span", "pai-at", { title: labels.join(", ") }, labels.slice(0, NAMED).join(", ") + more));
    });
    if (top && (top.offsetTop < this.node.scrollTop || top.offsetTop + top.offsetHeight > this.node.scrollTop + this.node.clientHeight)) {
      this.node.scrollTop = top.offsetTop - this.node.clientHeight / 3;
    }
  }
}
