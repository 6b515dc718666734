// The read-out of the curves, and the maps of Figure 3.

function wireCurve(plot) {
  const drawing = plot.querySelector("svg.curve");
  if (!drawing) return;
  const { x, series } = readData(plot.querySelector(".curve-data"));
  const [low, high, left, right, width] = drawing.dataset.frame.split(" ").map(Number);
  const cursor = drawing.querySelector(".cursor");
  const outputs = plot.querySelectorAll(".value");
  const at = drawing.querySelector(".at");
  const stops = [...new Set(series.flatMap((one) => one.xs))].sort((a, b) => a - b);
  let place = stops.length - 1;

  const show = (index) => {
    place = clamp(index, 0, stops.length - 1);
    const stop = stops[place];
    const across = left + (stop - low) / (high - low) * (right - left);
    cursor.setAttribute("x1", across);
    cursor.setAttribute("x2", across);
    cursor.classList.add("on");
    const onTheRight = across > (left + right) / 2;
    at.textContent = `${x} ${Number(stop.toPrecision(6))}`;
    at.setAttribute("x", across + (onTheRight ? -6 : 6));
    at.setAttribute("text-anchor", onTheRight ? "end" : "start");
    series.forEach((one, number) => {
      const nearest = nearestIndex(one.xs, stop);
      const value = one.ys[nearest];
      outputs[number].textContent = value === null || value === undefined ? "–" : Number(value.toPrecision(4));
    });
  };
  const hide = () => {
    cursor.classList.remove("on");
    at.textContent = "";
    for (const output of outputs) output.textContent = "";
  };
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width * width;
    show(nearestIndex(stops, low + (across - left) / (right - left) * (high - low)));
  });
  drawing.addEventListener("pointerleave", hide);
  drawing.addEventListener("focus", () => show(place));
  drawing.addEventListener("blur", hide);
  drawing.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: stops.length - 1 };
    if (!(event.key in moves)) return;
    show(moves[event.key]);
    event.preventDefault();
    event.stopPropagation();
  });
}

function nearestIndex(sorted, value) {
  let low = 0;
  let high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle;
    else high = middle;
  }
  return Math.abs(sorted[high] - value) < Math.abs(sorted[low] - value) ? high : low;
}

const bounds = (maps) => ({ low: Math.min(...maps.map((one) => one.low)), high: Math.max(...maps.map((one) => one.high)) });

function buildGrid(root) {
  const data = readData(root.querySelector(".grid-data"));
  const maps = data.maps.map((row) => row.map(readMap));
  const readout = element("output", { class: "readout" });
  const repaint = [];
  const legend = element("div", { class: "grid-legend" });
  const own = element("input", { type: "checkbox" });

  const table = element("div", { class: "grid", style: `--columns:${data.columns.length}` }, element("span"),
    ...data.columns.map((name) => element("b", { class: "grid-column" }, name)));
  maps.forEach((row, r) => {
    table.append(element("b", { class: "grid-row" }, data.rows[r]));
    row.forEach((map, c) => {
      const frame = mapFrame(map, data.truth[c], {
        label: `${data.rows[r]}, ${data.columns[c]}: similarity of every pair of ${map.clips} clips`, scale: map, readout,
      });
      repaint.push(() => paintCells(frame.canvas, map, allRows(map), own.checked ? bounds(row) : bounds(maps.flat())));
      table.append(element("div", { class: "grid-cell" }, frame.node, contrastLine(data.contrast[r][c])));
    });
  });
  const paint = () => {
    for (const one of repaint) one();
    legend.replaceChildren(own.checked ? element("span", {}, "each row: its lowest to its highest value") : colourBar(bounds(maps.flat())));
  };
  own.addEventListener("change", paint);
  paint();
  root.append(table, element("div", { class: "grid-foot" }, legend,
    element("label", { class: "check" }, own, " stretch the colours of each row"),
    element("span", { class: "truth-key" }, element("i"), "extent of the action")), readout);
}

function contrastLine(contrast) {
  if (!contrast) return element("p", { class: "contrast" }, "–");
  const [within, across] = contrast;
  return element("p", { class: "contrast", title: "Mean similarity of two clips of the action, and of one inside it with one outside" },
    `inside ${within.toFixed(2)} · across ${across.toFixed(2)}`);
}
