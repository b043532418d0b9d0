// The colours a canvas needs, as the style sheet has them for the theme of the page.
export function colours(node) {
  const style = getComputedStyle(node);
  const get = (name) => style.getPropertyValue(name).trim();
  const lines = Array.from({ length: 8 }, (_, i) => get(`--pai-line-${i}`));
  return {
    muted: get("--pai-muted"),
    grid: get("--pai-grid"),
    band: (i) => lines[i % lines.length] + get("--pai-band-alpha"),
    warning: get("--pai-warning"),
    lines,
  };
}
