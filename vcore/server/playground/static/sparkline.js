// Tokens a second as a line with the area below it.

import { byId, colour, prepare, rate, setText } from "./dom.js";

/** Draw `values`, the oldest first. The scale is the largest of them, but not below 1. */
export function drawSparkline(values) {
  const canvas = byId("spark");
  const drawing = prepare(canvas, 64);
  const top = Math.max(1, ...values);
  setText(byId("spark-top"), `peak ${rate(Math.max(0, ...values))}/s`);
  canvas.setAttribute("aria-label", `Tokens generated a second over two minutes: now ${values.at(-1)}, at most ${Math.max(...values)}`);
  if (!drawing) return;
  const { context, width, height } = drawing;
  const x = (index) => (index / (values.length - 1)) * width;
  const y = (value) => height - 1.5 - (value / top) * (height - 5);
  context.beginPath();
  values.forEach((value, index) => context.lineTo(x(index), y(value)));
  context.strokeStyle = colour("--accent");
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(0, height);
  context.closePath();
  context.globalAlpha = 0.14;
  context.fillStyle = colour("--accent");
  context.fill();
  context.globalAlpha = 1;
}
