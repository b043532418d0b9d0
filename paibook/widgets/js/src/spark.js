// A small curve for a table's cell, and a duration in words.
import { element } from "./element.js";

const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 96, height: 20 };

export function spark({ curve: values, metric }) {
  if (values.length < 2) return "";
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (i) => 1 + (i / (values.length - 1)) * (SIZE.width - 2);
  const y = (value) => SIZE.height - 2 - (high > low ? (value - low) / (high - low) : 0.5) * (SIZE.height - 4);
  const picture = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ class: "pai-spark", ...SIZE, role: "img", "aria-label": `${metric}: ${values[0]} to ${values.at(-1)}` })) picture.setAttribute(name, value);
  const line = document.createElementNS(SVG, "polyline");
  line.setAttribute("points", values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).join(" "));
  picture.append(line);
  return element("span", "", { title: metric }, [picture]);
}

export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
