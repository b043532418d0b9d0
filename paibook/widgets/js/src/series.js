// From the described series to the columns that uPlot draws.
import uPlot from "uplot";

const gap = (value) => (Number.isFinite(value) ? value : null);

// Exponential moving average, corrected for its start; a gap stays one and does not count.
export function smoothed(values, weight) {
  let sum = 0;
  let norm = 0;
  return values.map((value) => {
    if (value == null) return null;
    sum = weight * sum + (1 - weight) * value;
    norm = weight * norm + (1 - weight);
    return sum / norm;
  });
}

// Columns of one chart: x, then for each line its value, and where it has them its band and its value unsmoothed.
// `lines` says at which columns they stand.
export function columns(series, read, smoothing) {
  const lines = [];
  const tables = series.map((one) => {
    const mean = Array.from(read(one.mean), gap);
    const parts = [smoothing ? smoothed(mean, smoothing) : mean];
    if (one.low) parts.push(Array.from(read(one.low), gap), Array.from(read(one.high), gap));
    if (smoothing) parts.push(mean);
    lines.push({ label: one.label, band: Boolean(one.low), raw: Boolean(smoothing), best: one.best, bestText: one.best_text });
    return [Array.from(read(one.x)), ...parts];
  });
  if (tables.length === 1) return { lines, data: tables[0] };
  if (!tables.length) return { lines, data: [[]] };
  // A step only others reported is drawn through; a value that was not finite stays a gap (null mode 2).
  return { lines, data: uPlot.join(tables, tables.map((table) => table.map(() => 2))) };
}

// Points are drawn only where a value stands alone between gaps; a line shows all others.
export function lonely(chart, i) {
  const values = chart.data[i];
  const alone = [];
  for (let k = 0; k < values.length; k++) {
    if (values[k] != null && values[k - 1] == null && values[k + 1] == null) alone.push(k);
  }
  return alone;
}
