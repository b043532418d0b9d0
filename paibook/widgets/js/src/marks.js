// What is drawn over the lines.

// A cross at the foot of the chart wherever a value was NaN or infinite.
export function cross(chart, steps, colour) {
  const { bbox } = chart;
  const r = 3.5 * devicePixelRatio;
  const y = bbox.top + bbox.height - 1.6 * r;
  stroked(chart, colour, (ctx) => {
    for (const step of steps) {
      const x = chart.valToPos(step, "x", true);
      ctx.moveTo(x - r, y - r);
      ctx.lineTo(x + r, y + r);
      ctx.moveTo(x - r, y + r);
      ctx.lineTo(x + r, y - r);
    }
  });
}

// A ring around the best value.
export function ring(chart, [x, y], colour) {
  const { x: across, y: up } = chart.scales;
  if (x < across.min || x > across.max || (up.distr === 3 && !(y > 0))) return;
  stroked(chart, colour, (ctx) => ctx.arc(chart.valToPos(x, "x", true), chart.valToPos(y, "y", true), 4.5 * devicePixelRatio, 0, 2 * Math.PI));
}

// A dashed line where somebody made a note.
export function notes(chart, x, colour) {
  stroked(chart, colour, (ctx) => {
    const at = chart.valToPos(x, "x", true);
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.lineWidth = devicePixelRatio;
    ctx.moveTo(at, chart.bbox.top);
    ctx.lineTo(at, chart.bbox.top + chart.bbox.height);
  });
}

function stroked(chart, colour, path) {
  const { ctx, bbox } = chart;
  const edge = 6 * devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left - edge, bbox.top - edge, bbox.width + 2 * edge, bbox.height + 2 * edge);
  ctx.clip();
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.5 * devicePixelRatio;
  ctx.beginPath();
  path(ctx);
  ctx.stroke();
  ctx.restore();
}
