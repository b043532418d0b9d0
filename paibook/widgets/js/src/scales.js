// Axes: ranges, ticks and labels beyond what uPlot does itself.
import { tick } from "./number.js";

// A logarithmic axis ends a little beyond the data, not at the next powers of ten.
export function logRange(low, high) {
  if (low == null || !(low > 0)) return [1, 10];
  const margin = Math.max(1.05, (high / low) ** 0.06);
  return [low / margin, high * margin];
}

// Multiples of the powers of ten; only the powers when there are many, even steps within one.
export function logSplits(low, high) {
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
export function logLabels(splits) {
  if (splits.length <= 6) return splits.map(tick);
  return splits.map((v) => ([1, 2, 5].includes(Math.round(v / 10 ** Math.floor(Math.log10(v) + 1e-9))) ? tick(v) : ""));
}

// Steps are whole; epochs and seconds need not be.
export function stepLabels(axis, splits) {
  return splits.map((v) => (axis !== "step" || Number.isInteger(v) ? tick(v) + (axis === "time" ? " s" : "") : ""));
}

// What a place on the axis is called.
export function placeText(axis, x) {
  if (axis === "time") return `${Number(x.toPrecision(4))} s`;
  return axis === "epoch" ? `epoch ${Number(x.toFixed(2))}` : `step ${Math.round(x).toLocaleString("en")}`;
}
