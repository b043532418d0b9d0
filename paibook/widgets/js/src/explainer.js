// The player: which picture is shown, the buttons that move it, and the cell's code with the lines that it is at. The
// kernel draws; pictures that come next are asked for before they are due, and kept.
import { Code } from "./code.js";
import { element } from "./element.js";

const NEWS_MS = 500;
const GIVE_UP_MS = 3000; // on an answer: the kernel is gone, or was restarted
const SPEEDS = [0.125, 0.25, 0.5, 1, 2, 4];
const LEAST_S = 0.25; // a picture stays at speed 1, however soon the next one came
const MOST_S = 2;
const AHEAD = 12; // pictures asked for before they are due
const KEPT = 400;

function render({ model, el }) {
  const kept = new Map(); // number -> picture
  const asked = new Map(); // number -> when
  let mode = model.get("state") === "running" ? "live" : "paused";
  let number = model.get("frames").at(-1)?.[0] ?? -1;
  let drawn = null;
  let timer = 0;

  const button = (name, text, title, press) => {
    const node = element("button", "pai-button", { type: "button", title, "aria-label": title, "data-do": name }, text);
    node.addEventListener("click", press);
    return node;
  };
  const first = button("first", "|◀", "First picture (Home)", () => go(0));
  const back = button("back", "◀", "One picture back (Left)", () => go(place() - 1));
  const play = button("play", "", "", () => toggle());
  const forward = button("forward", "▶", "One picture on (Right)", () => go(place() + 1));
  const last = button("last", "▶|", "Last picture (End)", () => go(frames().length - 1));
  const live = button("live", "Live", "Follow the running cell (L)", () => follow());
  const slider = element("input", "pai-slider", { type: "range", min: 0, step: 1, "aria-label": "Picture" });
  const speed = element("select", "pai-button", { "aria-label": "Speed", title: "Speed" }, SPEEDS.map((one) => element("option", "", { value: one }, one < 1 ? `1/${1 / one}×` : `${one}×`)));
  speed.value = "1";
  const where = element("span", "pai-where");
  const title = element("h3", "pai-title");
  const state = element("span", "pai-state");
  const said = element("span", "pai-said", { role: "status", "aria-live": "polite" });
  const picture = element("div", "pai-picture", { tabindex: "0", role: "group", "aria-label": "The run as it stood" });
  const code = new Code();
  const controls = element("div", "pai-controls", { role: "toolbar", "aria-label": "Player" }, [first, back, play, forward, last, slider, where, speed, live]);
  const root = element("div", "pai-explainer", { role: "region", "aria-label": "Explainer" }, [
    element("div", "pai-heading", {}, [title, state]),
    controls,
    element("div", "pai-sides", {}, [picture, code.node]),
    said,
  ]);
  // JupyterLab's own shortcuts must not see the player's keys.
  root.dataset.lmSuppressShortcuts = "true";
  el.append(root);

  const frames = () => model.get("frames");
  // The place of the picture shown; where that was thinned out, of the one before it.
  const place = () => {
    const list = frames();
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle][0] <= number) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  };

  const go = (to, by = "paused", speak = true) => {
    const list = frames();
    if (!list.length) return;
    mode = by;
    number = list[Math.max(0, Math.min(list.length - 1, to))][0];
    show();
    if (speak) say();
  };
  const toggle = () => {
    if (mode === "playing") return go(place());
    const atEnd = place() >= frames().length - 1;
    go(atEnd && model.get("state") !== "running" ? 0 : place(), "playing", false);
    said.textContent = "playing";
  };
  const follow = () => {
    go(frames().length - 1, "live", false);
    said.textContent = "live";
    news();
  };

  const ask = (numbers) => {
    const now = Date.now();
    const wanted = numbers.filter((one) => !kept.has(one) && now - (asked.get(one) ?? 0) > GIVE_UP_MS);
    if (!wanted.length) return;
    for (const one of wanted) asked.set(one, now);
    model.send({ kind: "frames", numbers: wanted });
  };
  const receive = (content) => {
    if (content?.kind !== "frames") return;
    // What did not come, thinned out or deleted meanwhile, is asked for again only after a while.
    for (const frame of content.frames) {
      asked.delete(frame.number);
      kept.delete(frame.number);
      kept.set(frame.number, frame);
    }
    for (const one of kept.keys()) {
      if (kept.size <= KEPT) break;
      kept.delete(one);
    }
    show();
  };

  let pending = false; // the last picture that was moved to is still to be spoken of
  const say = () => {
    pending = !kept.has(number);
    if (!pending) said.textContent = `picture ${place() + 1} of ${frames().length}: ${kept.get(number).text.split("\n").slice(0, 4).join("; ")}`;
  };

  // Show what there is: the picture itself may still be on its way, and then the one before stays.
  function show() {
    const list = frames();
    const running = model.get("state") === "running";
    if (mode === "live" || number < 0) number = list.at(-1)?.[0] ?? -1;
    if (mode === "live" && !running) mode = "paused"; // at the last picture
    const at = place();
    const frame = kept.get(number);
    if (frame && drawn !== frame) {
      drawn = frame;
      picture.innerHTML = frame.html; // drawn in the kernel from numbers and escaped words
      code.mark(frame.lines);
      root.dataset.number = number;
      if (pending) say();
    }
    title.textContent = model.get("title");
    state.textContent = model.get("state");
    state.dataset.state = model.get("state");
    root.dataset.mode = mode;
    slider.max = Math.max(0, list.length - 1);
    slider.value = at;
    where.textContent = list.length ? `${at + 1}/${list.length} · ${list[at][1].toFixed(list[at][1] < 100 ? 2 : 0)} s` : "no picture yet";
    slider.setAttribute("aria-valuetext", where.textContent);
    const playing = mode === "playing";
    play.textContent = playing ? "Pause" : "Play";
    play.title = playing ? "Pause the player; the run goes on (Space)" : "Play the pictures from here (Space)";
    play.setAttribute("aria-label", play.title);
    live.hidden = !running;
    live.setAttribute("aria-pressed", String(mode === "live"));
    for (const node of [first, back]) node.disabled = at === 0;
    for (const node of [forward, last]) node.disabled = at >= list.length - 1;
    for (const node of [play, slider]) node.disabled = !list.length;
    if (list.length) ask(list.slice(at, at + (playing ? AHEAD : mode === "live" ? 1 : 3)).map(([one]) => one));
    schedule();
  }

  // The next picture, when its time has come and it is there.
  function schedule() {
    clearTimeout(timer);
    if (mode !== "playing") return;
    const list = frames();
    const at = place();
    if (at >= list.length - 1) {
      if (model.get("state") === "running") return follow();
      mode = "paused";
      said.textContent = "the end";
      return show();
    }
    const gap = Math.min(MOST_S, Math.max(LEAST_S, list[at + 1][1] - list[at][1]));
    timer = setTimeout(() => {
      if (drawn?.number === number && kept.has(list[at + 1][0])) go(at + 1, "playing", false);
      else show();
    }, (1000 * gap) / Number(speed.value));
  }

  slider.addEventListener("input", () => go(Number(slider.value), "paused", false));
  slider.addEventListener("change", () => say());
  speed.addEventListener("change", () => show());
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === speed) return;
    const moves = { ArrowLeft: () => go(place() - 1), ArrowRight: () => go(place() + 1), Home: () => go(0), End: () => go(frames().length - 1) };
    const presses = event.target instanceof HTMLButtonElement ? {} : { " ": toggle };
    const act = { ...moves, ...presses, l: () => live.hidden || follow() }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });

  // News, while the run goes on and the player is in sight.
  let waits = 0;
  const news = () => {
    const inSight = document.visibilityState === "visible" && root.getClientRects().length > 0;
    if (!inSight || (waits && Date.now() - waits < GIVE_UP_MS)) return;
    waits = Date.now();
    model.send({ kind: "news" });
  };
  const clock = setInterval(() => model.get("state") === "running" && news(), NEWS_MS);
  const come = () => {
    waits = 0;
    show();
  };
  const names = ["change:version", "change:frames", "change:state", "change:title"];
  for (const name of names) model.on(name, come);
  const source = () => {
    code.show(model.get("source"));
    code.mark(drawn?.lines ?? {});
  };
  model.on("change:source", source);
  model.on("msg:custom", receive);
  source();
  show();
  return () => {
    clearTimeout(timer);
    clearInterval(clock);
    for (const name of names) model.off(name, come);
    model.off("change:source", source);
    model.off("msg:custom", receive);
  };
}

export default { render };
