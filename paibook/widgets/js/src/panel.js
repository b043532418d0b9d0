// One metric: name, last value, chart, and a legend whose entries are switches and show the value under the cursor.
import uPlot from "uplot";
import { element } from "./element.js";
import { number, tick } from "./number.js";
import { colours } from "./theme.js";

const HEIGHT = 168;
const FONT = '11px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif';

export class Panel {
  constructor(parent, name, sync) {
    this.sync = sync;
    this.hidden = new Set();
    this.last = element("span", "pai-last");
    this.plot = element("div", "pai-plot", { role: "img" });
    this.legend = element("div", "pai-legend");
    this.note = element("div", "pai-note");
    this.node = element("section", "pai-panel", { role: "group", "aria-label": name, "data-metric": name }, [
      element("div", "pai-panel-head", {}, [element("span", "pai-name", {}, name), this.last]),
      this.plot,
      this.legend,
      this.note,
    ]);
    parent.append(this.node);
    this.colours = colours(this.node);
    this.resizes = new ResizeObserver(() => this.resize());
    this.resizes.observe(this.plot);
  }

  show(description, points, log) {
    const [first, last, best, step] = description.summary;
    this.lastValue = last;
    this.note.textContent = description.note;
    this.plot.setAttribute("aria-label", `${description.name}: first ${first}, last ${last}, best ${best}, step ${step}`);
    const read = ([offset, length]) => points.subarray(offset, offset + length);
    this.marks = read(description.marks);
    const { data, lines } = columns(description.series, read);
    const positive = data.slice(1).some((column) => column.some((value) => value > 0));
    this.log = log && positive;
    const shown = this.log ? data.map((column, i) => (i ? column.map((v) => (v > 0 ? v : null)) : column)) : data;
    const shape = JSON.stringify([this.log, lines.map((line) => [line.label, line.band])]);
    if (shape !== this.shape) this.build(shape, lines, shown);
    else this.chart.setData(shown);
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
        bands.push({ series: [series.length + 1, series.length], fill: () => this.colours.band });
        for (let k = 0; k < 2; k++) series.push({ stroke: "transparent", width: 0, scale: "y", points: { show: false } });
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
        cursor: { sync: { key: this.sync, setSeries: false }, y: false, drag: { setScale: false, x: false, y: false }, points: { size: 6 } },
        scales: {
          x: { time: false, range: (_, low, high) => (low == null ? [0, 1] : low === high ? [low - 1, high + 1] : [low, high]) },
          y: this.log ? { distr: 3, range: (_, low, high) => logRange(low, high) } : {},
        },
        axes: [
          { ...axis, size: 26, space: 60, grid: { show: false }, values: (_, splits) => splits.map((v) => (Number.isInteger(v) ? tick(v) : "")) },
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
        hooks: { setCursor: [() => this.label()], draw: [(chart) => this.cross(chart)] },
      },
      data,
      this.plot,
    );
    this.legend.replaceChildren(...lines.map((line, i) => this.entry(line, i)));
    lines.forEach((line) => this.hidden.has(line.label) && this.switch(line, false));
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
    this.last.textContent = i == null ? this.lastValue : `step ${Math.round(data[0][i]).toLocaleString("en")}`;
    this.last.classList.toggle("pai-muted", i != null);
    for (const line of this.lines) {
      const value = i == null ? null : data[line.column][i];
      let text = value == null ? "" : number(value);
      if (i != null && value == null && this.marks.includes(data[0][i])) text = "not finite";
      if (value != null && line.band) text += ` (${number(data[line.column + 1][i])} to ${number(data[line.column + 2][i])})`;
      line.value.textContent = text;
    }
  }

  stroke(i) {
    return this.colours.lines[i % this.colours.lines.length];
  }

  // A cross at the foot of the chart wherever a value was NaN or infinite.
  cross(chart) {
    const { ctx, bbox } = chart;
    const r = 3.5 * devicePixelRatio;
    const y = bbox.top + bbox.height - 1.6 * r;
    ctx.save();
    ctx.strokeStyle = this.colours.warning;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.beginPath();
    for (const step of this.marks) {
      const x = chart.valToPos(step, "x", true);
      ctx.moveTo(x - r, y - r);
      ctx.lineTo(x + r, y + r);
      ctx.moveTo(x - r, y + r);
      ctx.lineTo(x + r, y - r);
    }
    ctx.stroke();
    ctx.restore();
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
  }
}

// uPlot wants one column of steps for all lines; ranks may have reported different ones.
function columns(series, read) {
  const lines = series.map((one) => ({ label: one.label, band: Boolean(one.low) }));
  if (series.length === 1) {
    const one = series[0];
    const parts = one.low ? [one.mean, one.low, one.high] : [one.mean];
    return { lines, data: [Array.from(read(one.x)), ...parts.map((part) => Array.from(read(part), gap))] };
  }
  const tables = series.map((one) => [Array.from(read(one.x)), Array.from(read(one.mean), gap)]);
  // A step only other ranks reported is drawn through; a value that was not finite stays a gap (null mode 2).
  return { lines, data: uPlot.join(tables, tables.map((table) => table.map(() => 2))) };
}

const gap = (value) => (Number.isFinite(value) ? value : null);

// Points are drawn only where a value stands alone between gaps; a line shows all others.
function lonely(chart, i) {
  const values = chart.data[i];
  const alone = [];
  for (let k = 0; k < values.length; k++) {
    if (values[k] != null && values[k - 1] == null && values[k + 1] == null) alone.push(k);
  }
  return alone;
}

// A logarithmic axis ends a little beyond the data, not at the next powers of ten.
function logRange(low, high) {
  if (low == null || !(low > 0)) return [1, 10];
  const margin = Math.max(1.05, (high / low) ** 0.06);
  return [low / margin, high * margin];
}

// Multiples of the powers of ten; only the powers when there are many, even steps within one.
function logSplits(low, high) {
  const decades = Math.log10(high / low);
  if (decades < 0.5) return evenSplits(low, high);
  const every = Math.ceil(decades / 8);
  const factors = decades > 3 ? [1] : [1, 2, 3, 4, 5, 6, 7, 8, 9];
  const splits = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    if (power % every === 0) splits.push(...factors.map((factor) => Number((factor * 10 ** power).toPrecision(12))));
  }
  return splits.filter((split) => split >= low && split <= high);
}

function evenSplits(low, high) {
  const rough = (high - low) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((candidate) => candidate >= rough);
  const count = Math.floor(high / step) - Math.ceil(low / step) + 1;
  return Array.from({ length: count }, (_, i) => Number(((Math.ceil(low / step) + i) * step).toPrecision(12)));
}

// Where the multiples crowd, only 1, 2 and 5 times a power of ten get a label; the others are grid lines.
function logLabels(splits) {
  if (splits.length <= 6) return splits.map(tick);
  return splits.map((v) => ([1, 2, 5].includes(Math.round(v / 10 ** Math.floor(Math.log10(v) + 1e-9))) ? tick(v) : ""));
}
