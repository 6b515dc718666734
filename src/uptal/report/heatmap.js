// Self-similarity maps: bytes to colours, bars of the ground truth along the edges, a crosshair that follows the time.

// From black over violet and orange to pale yellow: brighter is more similar, as in the paper.
const HEAT = [
  [2, 2, 10], [29, 12, 70], [78, 15, 108], [125, 30, 108], [170, 46, 91],
  [210, 71, 66], [238, 107, 36], [250, 155, 16], [246, 209, 62], [252, 253, 178],
];

function heatColour(share) {
  const place = clamp(share, 0, 1) * (HEAT.length - 1);
  const index = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[index].map((low, channel) => Math.round(low + (HEAT[index + 1][channel] - low) * (place - index)));
}

const HEAT_CSS = `linear-gradient(to right, ${HEAT.map((colour) => `rgb(${colour.join(" ")})`).join(", ")})`;

function readMap(payload) {
  const bytes = decodeBase64(payload.bytes);
  const unit = (payload.high - payload.low) / 255;
  return {
    ...payload,
    value: (row, column) => payload.low + bytes[row * payload.side + column] * unit,
    // Seconds to the share of the map's side, and back to a cell.
    share: (time) => (time - payload.start) / (payload.end - payload.start),
    cell: (share) => clamp(Math.floor(share * payload.side), 0, payload.side - 1),
  };
}

function paintCells(canvas, map, rows, scale) {
  canvas.width = map.side;
  canvas.height = rows.length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(map.side, rows.length);
  const width = Math.max(scale.high - scale.low, 1e-12);
  rows.forEach((row, y) => {
    for (let x = 0; x < map.side; x++) {
      const colour = heatColour((map.value(row, x) - scale.low) / width);
      image.data.set([...colour, 255], 4 * (y * map.side + x));
    }
  });
  context.putImageData(image, 0, 0);
}

const allRows = (map) => Array.from({ length: map.side }, (_, index) => index);

// The bars stand along the top and the left edge, as the green bars of the paper's Figure 3.
function edgeBars(map, segments) {
  const top = element("div", { class: "edge top", "aria-hidden": "true" });
  const left = element("div", { class: "edge left", "aria-hidden": "true" });
  for (const segment of segments) {
    const from = clamp(map.share(segment.start), 0, 1) * 100;
    const size = clamp(map.share(segment.end), 0, 1) * 100 - from;
    top.append(element("i", { style: `left:${from}%;width:${size}%` }));
    left.append(element("i", { style: `top:${from}%;height:${size}%` }));
  }
  return [top, left];
}

function colourBar(scale) {
  return element("div", { class: "colourbar" },
    element("span", {}, scale.low.toFixed(2)),
    element("i", { style: `background:${HEAT_CSS}` }),
    element("span", {}, scale.high.toFixed(2)));
}

// A map in a frame; `seek` is called with the seconds that were clicked, `readout` tells the value under the pointer.
function mapFrame(map, segments, { label, scale, readout, seek = null }) {
  const canvas = element("canvas", { class: "cells", role: "img", "aria-label": label });
  paintCells(canvas, map, allRows(map), scale);
  const cross = ["x", "y", "spot"].map((part) => element("i", { class: `cross ${part}` }));
  const plane = element("div", { class: seek ? "plane seekable" : "plane" }, canvas, ...(seek ? cross : []));
  const place = (event) => {
    const box = plane.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const timeAt = (share) => map.start + clamp(share, 0, 1) * (map.end - map.start);
  const tell = (event) => {
    const [x, y] = place(event);
    const value = map.value(map.cell(y), map.cell(x)).toFixed(2);
    readout.textContent = `${timeAt(x).toFixed(1)} s and ${timeAt(y).toFixed(1)} s: similarity ${value}`;
  };
  const idle = readout.textContent;
  plane.addEventListener("pointermove", tell);
  plane.addEventListener("pointerleave", () => { readout.textContent = idle; });
  if (seek) {
    plane.addEventListener("pointerdown", (event) => {
      plane.setPointerCapture(event.pointerId);
      seek(timeAt(place(event)[0]));
    });
    plane.addEventListener("pointermove", (event) => { if (event.buttons & 1) seek(timeAt(place(event)[0])); });
  }
  const follow = (time) => {
    const share = `${clamp(map.share(time), 0, 1) * 100}%`;
    for (const part of cross) part.style.setProperty("--at", share);
  };
  return { node: element("div", { class: "frame" }, ...edgeBars(map, segments), plane), canvas, follow };
}
