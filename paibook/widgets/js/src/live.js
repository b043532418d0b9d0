// What the panels of GPUs, cluster and runs have in common: the page asks for news while the panel is in sight.
import { element } from "./element.js";

const GIVE_UP_MS = 3000; // on an answer: the kernel was asked too often, or has restarted

export function panel(model, el, name, draw) {
  const title = element("h3", "pai-title");
  const body = element("div", "pai-body");
  const problem = element("div", "pai-problem", { role: "alert" });
  const root = element("div", "pai-live", { role: "region", "aria-label": name, "data-panel": name }, [title, body, problem]);
  el.append(root);

  let asked = 0;
  const ask = () => {
    const inSight = document.visibilityState === "visible" && root.getClientRects().length > 0;
    if (!inSight || (asked && Date.now() - asked < GIVE_UP_MS)) return;
    asked = Date.now();
    model.send({ kind: "refresh" });
  };
  const show = () => {
    title.textContent = draw(model.get("state"), body) ?? name;
    problem.textContent = model.get("problem");
  };
  let frame = 0;
  let shown = "";
  const later = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(showNews);
  };
  const news = () => {
    asked = 0;
    later();
  };
  // Not under a finger or an open list: a click needs its button to stay, and a list its cell. And only what is new,
  // so that a scrolled log and a selected text stay as they are.
  const showNews = () => {
    const now = JSON.stringify(["state", "problem", "words", "picks"].map((key) => model.get(key)));
    if (now === shown || pressed || (document.activeElement?.tagName === "SELECT" && root.contains(document.activeElement))) return;
    shown = now;
    show();
  };
  let pressed = false;
  const press = () => (pressed = true);
  const release = () => {
    pressed = false;
    later();
  };
  root.addEventListener("pointerdown", press);
  root.addEventListener("change", later);
  root.addEventListener("focusout", later);
  window.addEventListener("pointerup", release);
  window.addEventListener("pointercancel", release);
  const names = ["change:version", "change:problem", "change:words", "change:picks"];
  for (const one of names) model.on(one, news);
  const timer = setInterval(ask, model.get("every"));
  show();
  return {
    redraw: show,
    end() {
      clearInterval(timer);
      cancelAnimationFrame(frame);
      window.removeEventListener("pointerup", release);
      window.removeEventListener("pointercancel", release);
      for (const one of names) model.off(one, news);
    },
  };
}

export function button(text, title, press, pressed = null) {
  const node = element("button", "pai-button", { type: "button", title }, text);
  if (pressed !== null) node.setAttribute("aria-pressed", String(pressed));
  node.addEventListener("click", press);
  return node;
}

export function table(columns, rows) {
  const head = element("tr", "", {}, columns.map((name) => element("th", "", { scope: "col" }, name)));
  return element("div", "pai-scroll", {}, [element("table", "", {}, [element("thead", "", {}, [head]), element("tbody", "", {}, rows)])]);
}

export function row(cells, attributes = {}) {
  return element("tr", "", attributes, cells.map((cell) => element("td", "", {}, cell)));
}

export function bar(share, text, label) {
  const percent = Math.round(100 * Math.min(1, Math.max(0, share)));
  return element("div", "pai-gauge", { role: "meter", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(percent) }, [
    element("span", "pai-gauge-fill", { style: `width: ${percent}%` }),
    element("span", "pai-gauge-text", {}, text),
  ]);
}

export function bytes(count) {
  if (count == null) return "";
  return count >= 2 ** 30 ? `${(count / 2 ** 30).toFixed(1)} GiB` : `${Math.round(count / 2 ** 20)} MiB`;
}

// Rows are drawn anew with each answer; a button that had the focus gets it back.
export function replace(body, children) {
  const key = document.activeElement?.dataset?.key;
  const had = key && body.contains(document.activeElement);
  const top = body.querySelector(".pai-log")?.scrollTop ?? 0;
  body.replaceChildren(...children);
  const log = body.querySelector(".pai-log");
  if (log) log.scrollTop = top;
  if (had) body.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}
