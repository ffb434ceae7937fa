// The map of KV blocks: one cell a block as long as there is room, several blocks a cell beyond.

import { byId, colour, prepare } from "./dom.js";

const MOST_HEIGHT = 240;
const LARGEST_CELL = 10;
const [FREE, USED, CACHED] = [0, 1, 2];

/** States by block, without the null block: 2 bits each, four a byte; used and cached at once counts as used. */
function unpack(packed, numBlocks) {
  const states = new Uint8Array(Math.max(0, numBlocks - 1));
  for (let block = 1; block < numBlocks; block += 1) {
    const bits = (packed[block >> 2] >> ((block & 3) * 2)) & 3;
    states[block - 1] = bits & 1 ? USED : bits & 2 ? CACHED : FREE;
  }
  return states;
}

/** The side of a cell, cells a row, and blocks a cell. */
function layOut(numBlocks, width) {
  for (let cell = LARGEST_CELL; cell >= 1; cell -= 1) {
    const columns = Math.floor(width / cell);
    if (Math.ceil(numBlocks / columns) * cell <= MOST_HEIGHT) return { cell, columns, merged: 1 };
  }
  return { cell: 1, columns: width, merged: Math.ceil(numBlocks / (width * MOST_HEIGHT)) };
}

/** A colour of the style sheet as red, green and blue. */
function rgb(name) {
  const value = colour(name);
  return [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
}

/** One pixel a cell; the colour of a cell of several blocks is mixed from theirs. */
function pixels(states, columns, merged) {
  const palette = [rgb("--free"), rgb("--used"), rgb("--cached")];
  const cells = Math.ceil(states.length / merged);
  const image = new ImageData(columns, Math.max(1, Math.ceil(cells / columns)));
  for (let cell = 0; cell < cells; cell += 1) {
    const end = Math.min(states.length, (cell + 1) * merged);
    let [red, green, blue] = [0, 0, 0];
    for (let block = cell * merged; block < end; block += 1) {
      const one = palette[states[block]];
      red += one[0];
      green += one[1];
      blue += one[2];
    }
    const size = end - cell * merged;
    image.data.set([red / size, green / size, blue / size, 255], cell * 4);
  }
  return image;
}

let last = null;

/** Draw the map of `numBlocks` blocks, the null block among them; returns how many blocks a cell stands for. */
export function drawBlocks(packed, numBlocks) {
  last = [packed, numBlocks];
  const canvas = byId("blocks");
  const width = canvas.clientWidth;
  const states = unpack(packed, numBlocks);
  if (!width || !states.length) return 1;
  const { cell, columns, merged } = layOut(states.length, width);
  const image = pixels(states, columns, merged);
  const { context } = prepare(canvas, image.height * cell);
  const small = new OffscreenCanvas(image.width, image.height);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, image.width * cell, image.height * cell);
  if (cell >= 4) drawGaps(context, image.width * cell, image.height * cell, cell);
  return merged;
}

function drawGaps(context, width, height, cell) {
  for (let x = cell - 1; x < width; x += cell) context.clearRect(x, 0, 1, height);
  for (let y = cell - 1; y < height; y += cell) context.clearRect(0, y, width, 1);
}

/** Draw it once more, as when the width or the light has changed. */
export function redrawBlocks() {
  if (last) drawBlocks(...last);
}
