// One group of metrics: name, last value, chart, and a legend whose entries are switches and show the value under the
// cursor. The chart takes the keyboard: arrows move the cursor, + and - zoom, Escape shows all.
import uPlot from "uplot";
import { element } from "./element.js";
import { cross, notes, ring } from "./marks.js";
import { number, tick } from "./number.js";
import { logLabels, logRange, logSplits, placeText, stepLabels } from "./scales.js";
import { columns, lonely } from "./series.js";
import { colours } from "./theme.js";

const HEIGHT = 168;
const FONT = '11px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif';

export class Panel {
  constructor(parent, name, sync, actions) {
    this.sync = sync;
    this.actions = actions;
    this.hidden = new Set();
    this.title = element("span", "pai-name", { title: name }, name);
    this.last = element("span", "pai-last");
    this.others = element("select", "pai-overlay", { "aria-label": `Overlay another metric on ${name}`, title: "Overlay another metric" });
    this.plot = element("div", "pai-plot", { role: "img", tabindex: "0", "aria-roledescription": "line chart" });
    this.legend = element("div", "pai-legend");
    this.note = element("div", "pai-note");
    this.node = element("section", "pai-panel", { role: "group", "aria-label": name, "data-metric": name }, [
      element("div", "pai-panel-head", {}, [this.title, this.others, this.last]),
      this.plot,
      this.legend,
      this.note,
    ]);
    parent.append(this.node);
    this.colours = colours(this.node);
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("blur", () => this.leave());
    this.others.addEventListener("change", () => {
      if (this.others.value) actions.overlay(this.metrics, this.others.value);
      this.others.value = "";
    });
    this.resizes = new ResizeObserver(() => this.resize());
    this.resizes.observe(this.plot);
  }

  show(description, points, look) {
    const [, first, last, best, step] = description.rows[0] ?? ["", "", "", "", ""];
    this.look = look;
    this.metrics = description.metrics;
    this.lastValue = description.rows.length > 1 ? "" : last;
    this.note.textContent = description.note;
    this.title.textContent = description.metrics.join(", ");
    this.plot.setAttribute("aria-label", `${this.title.textContent}: first ${first}, last ${last}, best ${best}, step ${step}. Arrow keys read values.`);
    const read = ([offset, length]) => points.subarray(offset, offset + length);
    this.marks = read(description.marks);
    const { data, lines } = columns(description.series, read, look.smoothing);
    const positive = data.slice(1).some((column) => column.some((value) => value > 0));
    this.log = look.log && positive;
    const shown = this.log ? data.map((column, i) => (i ? column.map((v) => (v > 0 ? v : null)) : column)) : data;
    const shape = JSON.stringify([this.log, look.axis, lines.map((line) => [line.label, line.band, line.raw])]);
    this.offer(look.names);
    if (shape !== this.shape) this.build(shape, lines, shown);
    else {
      this.lines.forEach((line, i) => Object.assign(line, { best: lines[i].best, bestText: lines[i].bestText }));
      this.chart.setData(shown);
    }
    this.label();
  }

  // Series change rarely (a rank joins, a switch is clicked), so the chart is then made anew.
  build(shape, lines, data) {
    this.chart?.destroy();
    this.shape = shape;
    this.lines = lines;
    const series = [{}];
    const bands = [];
    lines.forEach((line, i) => {
      const stroke = () => this.stroke(i);
      line.column = series.length;
      line.columns = [series.length];
      series.push({ stroke, width: 1.75, scale: "y", points: { show: true, filter: lonely, size: 4, fill: stroke, stroke } });
      if (line.band) {
        line.columns.push(series.length, series.length + 1);
        bands.push({ series: [series.length + 1, series.length], fill: () => this.colours.band(i) });
        for (let k = 0; k < 2; k++) series.push({ stroke: "transparent", width: 0, scale: "y", points: { show: false } });
      }
      if (line.raw) {
        line.columns.push(series.length);
        series.push({ stroke, width: 1, alpha: 0.3, scale: "y", points: { show: false } });
      }
    });
    const ink = () => this.colours.muted;
    const axis = { stroke: ink, font: FONT, ticks: { show: false }, gap: 4 };
    const grid = { stroke: () => this.colours.grid, width: 1 };
    this.chart = new uPlot(
      {
        width: this.width(),
        height: HEIGHT,
        padding: [8, 10, 0, 0],
        legend: { show: false },
        cursor: {
          sync: { key: this.sync, setSeries: false },
          y: false,
          drag: { setScale: false, x: true, y: false },
          points: { size: 6 },
          bind: { dblclick: () => () => this.actions.zoom(null) },
        },
        scales: {
          x: { time: false, range: (_, low, high) => this.range(low, high) },
          y: this.log ? { distr: 3, range: (_, low, high) => logRange(low, high) } : {},
        },
        axes: [
          { ...axis, size: 26, space: 60, grid: { show: false }, values: (_, splits) => stepLabels(this.look.axis, splits) },
          {
            ...axis,
            grid,
            space: 28,
            size: (_, labels) => Math.max(46, 14 + 6.4 * Math.max(0, ...(labels ?? []).map((label) => (label ?? "").length))),
            ...(this.log ? { splits: (_, __, low, high) => logSplits(low, high), filter: (_, splits) => splits } : {}),
            values: (_, splits) => (this.log ? logLabels(splits) : splits.map(tick)),
          },
        ],
        series,
        bands,
        hooks: { setCursor: [() => this.label()], setSelect: [(chart) => this.select(chart)], draw: [(chart) => this.draw(chart)] },
      },
      data,
      this.plot,
    );
    this.legend.replaceChildren(...lines.map((line, i) => this.entry(line, i)));
    lines.forEach((line) => this.hidden.has(line.label) && this.switch(line, false));
  }

  range(low, high) {
    if (this.look.zoom) return this.look.zoom;
    if (low == null) return [0, 1];
    return low === high ? [low - 1, high + 1] : [low, high];
  }

  select(chart) {
    const { left, width } = chart.select;
    if (width < 4) return;
    chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.actions.zoom(chart.posToVal(left, "x"), chart.posToVal(left + width, "x"));
  }

  key(event) {
    const { data, cursor, scales } = this.chart;
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    const { min, max } = scales.x;
    if (event.key in moves) {
      const last = data[0].length - 1;
      const start = cursor.idx ?? (moves[event.key] > 0 ? -1 : last + 1);
      const i = Math.max(0, Math.min(last, start + moves[event.key]));
      if (last >= 0) this.chart.setCursor({ left: this.chart.valToPos(data[0][i], "x"), top: 10 });
      this.actions.say(this.reading());
    } else if (event.key === "Escape") this.actions.zoom(null);
    else if (event.key === "+" || event.key === "-") {
      const middle = cursor.left >= 0 ? this.chart.posToVal(cursor.left, "x") : (min + max) / 2;
      const by = event.key === "+" ? 0.5 : 2;
      this.actions.zoom(middle - (middle - min) * by, middle + (max - middle) * by);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  leave() {
    this.chart?.setCursor({ left: -10, top: -10 });
  }

  // The values under the cursor in words, for a screen reader.
  reading() {
    const parts = this.lines.map((line) => `${line.label} ${line.value.textContent || "no value"}`);
    return `${this.title.textContent}, ${this.last.textContent}: ${parts.join("; ")}`;
  }

  offer(names) {
    this.others.hidden = names.length < 2;
    const listed = JSON.stringify([names, this.metrics]);
    if (listed === this.listed || document.activeElement === this.others) return;
    this.listed = listed;
    this.others.replaceChildren(
      element("option", "", { value: "" }, "+"),
      ...names
        .filter((name) => name !== this.metrics[0])
        .map((name) => element("option", "", { value: name }, this.metrics.includes(name) ? `without ${name}` : name)),
    );
  }

  entry(line, i) {
    line.value = element("span", "pai-value");
    line.button = element("button", "pai-entry", { type: "button", "aria-pressed": String(!this.hidden.has(line.label)) }, [
      element("span", "pai-swatch", { style: `--swatch: var(--pai-line-${i % 8})` }),
      element("span", "", {}, line.label),
      line.value,
    ]);
    line.button.title = `Show or hide ${line.label}`;
    line.button.addEventListener("click", () => this.switch(line, this.hidden.has(line.label)));
    return line.button;
  }

  switch(line, on) {
    if (on) this.hidden.delete(line.label);
    else this.hidden.add(line.label);
    line.button.setAttribute("aria-pressed", String(on));
    for (const column of line.columns) this.chart.setSeries(column, { show: on });
  }

  // Under the cursor: the step in the panel's head, the values in the legend. Without one: the last value in the head.
  label() {
    if (!this.chart) return;
    const { data, cursor } = this.chart;
    const i = cursor.left >= 0 && data[0][cursor.idx] != null ? cursor.idx : null;
    this.last.textContent = i == null ? this.lastValue : placeText(this.look.axis, data[0][i]);
    this.last.classList.toggle("pai-muted", i != null);
    for (const line of this.lines) {
      const value = i == null ? null : data[line.column][i];
      let text = value == null ? "" : number(value);
      if (i != null && value == null && this.marks.includes(data[0][i])) text = "not finite";
      if (value != null && line.band) text += ` (${number(data[line.column + 1][i])} to ${number(data[line.column + 2][i])})`;
      line.value.textContent = text;
      line.button.title = line.bestText ? `Show or hide ${line.label}; ${line.bestText}` : `Show or hide ${line.label}`;
    }
  }

  draw(chart) {
    for (const note of this.look.notes) notes(chart, note.x, this.colours.muted);
    this.lines.forEach((line, i) => line.best && !this.hidden.has(line.label) && ring(chart, line.best, this.stroke(i)));
    cross(chart, this.marks, this.colours.warning);
  }

  stroke(i) {
    return this.colours.lines[i % this.colours.lines.length];
  }

  width() {
    return Math.max(120, Math.floor(this.plot.clientWidth || 320));
  }

  resize() {
    // Only a node in the page has colours, and a widget is drawn before it is put there.
    if (!this.colours.muted) this.recolour();
    if (this.chart && this.plot.clientWidth && this.chart.width !== this.width()) this.chart.setSize({ width: this.width(), height: HEIGHT });
  }

  recolour() {
    this.colours = colours(this.node);
    this.chart?.redraw(false, true);
  }

  destroy() {
    this.resizes.disconnect();
    this.chart?.destroy();
    this.node.remove();
  }
}
