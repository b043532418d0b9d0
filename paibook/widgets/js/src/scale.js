// Where a value lies between the ends of its range, from 0 to 1, by its logarithm where the field says so.
export const bounded = (field) => field.low != null && field.high != null && (field.kind === "int" || field.kind === "float");

export function place(field, value) {
  if (!Number.isFinite(value)) return 0;
  const { low, high } = field;
  const part = field.log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  return Math.min(1, Math.max(0, Number.isFinite(part) ? part : 0));
}

// The value at a place, rounded to what the field takes: whole numbers, steps, three digits of the rest.
export function valueAt(field, part) {
  const { low, high, step } = field;
  let value = field.log ? low * (high / low) ** part : low + part * (high - low);
  if (step) value = low + Math.round((value - low) / step) * step;
  else if (field.kind === "float") value = Number(value.toPrecision(3));
  if (field.kind === "int") value = Math.round(value);
  value = Number(value.toPrecision(12));
  const smallest = step ?? (high - low) / 1000;
  const least = field.low_open ? low + smallest : low;
  const most = field.high_open ? high - smallest : high;
  return Math.min(most, Math.max(least, value));
}

// What is wrong with a number as it is typed, in few words; the model object has the last word.
export function outside(field, text) {
  if (field.kind !== "int" && field.kind !== "float") return "";
  const value = Number(text);
  if (text.trim() === "") return "a value is needed";
  if (!Number.isFinite(value)) return "a finite number is expected";
  if (field.kind === "int" && !Number.isInteger(value)) return "a whole number is expected";
  if (field.low != null && (value < field.low || (field.low_open && value === field.low))) return `below ${field.low_open ? "or at " : ""}${shown(field.low)}`;
  if (field.high != null && (value > field.high || (field.high_open && value === field.high))) return `above ${field.high_open ? "or at " : ""}${shown(field.high)}`;
  return "";
}

export function shown(value, kind = "") {
  if (value == null) return kind === "json" ? "null" : "";
  if (typeof value === "number") {
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e9) ? String(Number(value.toPrecision(12)).toExponential()).replace("e+", "e") : String(value);
  }
  return typeof value === "string" ? value : JSON.stringify(value);
}
