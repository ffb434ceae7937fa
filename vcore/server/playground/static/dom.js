// The few ways in which this page makes elements. Text is always text: nothing here or elsewhere parses markup.

export function byId(id) {
  return document.getElementById(id);
}

/** An element with a class and children: strings become text. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Set text only where it differs, so that nothing is laid out or read out for nothing. */
export function setText(element, text) {
  const value = String(text);
  if (element.textContent !== value) element.textContent = value;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count, with separators. */
export function count(number) {
  return whole.format(number);
}

/** A rate: one decimal below 100. */
export function rate(number) {
  return number >= 99.95 || number === 0 ? whole.format(number) : number.toFixed(1);
}

/** A custom property of the style sheet, as it is in the light of now. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A canvas's context, cleared, with its size in device pixels set to what is laid out. Null while it is not shown. */
export function prepare(canvas, height) {
  const width = canvas.clientWidth;
  if (!width) return null;
  const scale = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height, scale };
}
