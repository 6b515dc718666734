// Lanes under the video: the ground truth, the predictions of each label, and how alike every moment is to the present.

const MAX_LANES = 8;
const MAX_ROWS = 4;

// Places segments, best first, in the first row where they overlap nothing; those without a place are left over.
function packRows(segments) {
  const rows = [];
  const placed = [];
  let left = 0;
  for (const segment of [...segments].sort((a, b) => (b.score ?? 0) - (a.score ?? 0))) {
    let row = rows.findIndex((taken) => taken.every((one) => segment.end <= one.start || segment.start >= one.end));
    if (row < 0) row = rows.length < MAX_ROWS ? rows.push([]) - 1 : -1;
    if (row < 0) { left += 1; continue; }
    rows[row].push(segment);
    placed.push({ segment, row });
  }
  return { placed, left, count: Math.max(rows.length, 1) };
}

// Labels in order of their best score; beyond the number of lanes the weakest share one.
function labelLanes(predictions) {
  const best = new Map();
  for (const one of predictions) best.set(one.label, Math.max(best.get(one.label) ?? -Infinity, one.score));
  const labels = [...best.keys()].sort((a, b) => best.get(b) - best.get(a));
  const own = labels.length > MAX_LANES ? labels.slice(0, MAX_LANES - 1) : labels;
  const lanes = own.map((label) => ({ name: label, holds: (one) => one.label === label }));
  if (own.length < labels.length) {
    const named = new Set(own);
    lanes.push({ name: `${labels.length - own.length} other labels`, holds: (one) => !named.has(one.label) });
  }
  return lanes;
}

function labelColours(predictions) {
  const colours = new Map();
  for (const lane of labelLanes(predictions)) colours.set(lane.name, LABEL_COLOURS[colours.size % LABEL_COLOURS.length]);
  return (label) => colours.get(label) ?? LABEL_COLOURS[LABEL_COLOURS.length - 1];
}

function scoreRange(predictions) {
  const scores = predictions.map((one) => one.score);
  const low = Math.min(0, ...scores);
  const high = Math.max(low, ...scores);
  return { low, high: high > low ? high : low + 1 };
}

function buildTimeline(panel, map, { seek, pick }) {
  const predictions = panel.predictions ?? [];
  const colour = labelColours(predictions);
  const range = scoreRange(predictions);
  const percent = (time) => clamp(time / panel.duration, 0, 1) * 100;
  const playhead = element("i", { class: "playhead" });
  const overlay = element("div", {
    class: "overlay", role: "slider", tabindex: "0", "aria-label": "Time in the video", "aria-valuemin": "0",
    "aria-valuemax": panel.duration.toFixed(2), "aria-orientation": "horizontal",
  }, playhead);
  const root = element("div", { class: "timeline" });
  const lane = (name, kind, title = name) => {
    const track = element("div", { class: `track ${kind}` });
    const extra = element("small");
    root.append(element("div", { class: "lane-name", title }, element("span", {}, name), extra), track);
    return { track, extra };
  };
  const bar = ({ segment, row }, kind) => {
    const from = percent(segment.start);
    const about = `${segment.label}, ${segment.start.toFixed(2)} to ${segment.end.toFixed(2)} s`;
    const node = element("i", {
      class: `bar ${kind}`,
      style: `left:${from}%;width:${percent(segment.end) - from}%;--row:${row}`,
      title: segment.score === undefined ? about : `${about}, score ${segment.score.toFixed(3)}`,
    });
    if (kind === "truth") node.append(element("span", {}, segment.label));
    else {
      const strength = 0.18 + 0.82 * (segment.score - range.low) / Math.max(range.high - range.low, 1e-12);
      node.style.setProperty("--colour", colour(segment.label));
      node.style.setProperty("--strength", clamp(strength, 0.18, 1).toFixed(3));
    }
    bars.set(node, segment);
    return node;
  };
  const bars = new Map();

  const axis = lane("", "axis").track;
  for (const mark of timeMarks(0, panel.duration, 9)) {
    axis.append(element("span", { class: endStyle(percent(mark.time)), style: `left:${percent(mark.time)}%` }, mark.text));
  }
  if (panel.truth) {
    const { track } = lane("ground truth", "truth");
    const packed = packRows(panel.truth);
    track.style.setProperty("--rows", packed.count);
    track.append(...packed.placed.map((one) => bar(one, "truth")));
  }
  const lanes = labelLanes(predictions).map((one) => ({ ...one, ...lane(one.name, "found") }));
  const strip = map ? element("canvas", { class: "strip", "aria-hidden": "true" }) : null;
  if (map) lane("like this moment", "likeness", "Similarity of every moment to the one at the playhead").track.append(strip);
  root.append(overlay);

  const show = (visible) => {
    for (const one of lanes) {
      for (const node of one.track.children) bars.delete(node);
      const packed = packRows(visible.filter(one.holds));
      one.track.style.setProperty("--rows", packed.count);
      one.track.classList.toggle("single", packed.count === 1);
      one.track.replaceChildren(...packed.placed.map((entry) => bar(entry, "found")));
      one.extra.textContent = packed.left ? `+${packed.left} beneath` : "";
      one.extra.title = packed.left ? "Segments that overlap better ones; they are in the table." : "";
    }
  };
  let stripRow = -1;
  const follow = (time) => {
    playhead.style.left = `${percent(time)}%`;
    overlay.setAttribute("aria-valuenow", time.toFixed(2));
    overlay.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${panel.duration.toFixed(1)} seconds`);
    for (const [node, segment] of bars) {
      node.classList.toggle("now", segment.start <= time && time < segment.end);
    }
    const row = map ? map.cell(map.share(time)) : -1;
    if (row === stripRow) return;
    stripRow = row;
    paintCells(strip, map, [row], map);
    strip.style.left = `${(map.start / panel.duration) * 100}%`;
    strip.style.width = `${((map.end - map.start) / panel.duration) * 100}%`;
  };

  // Drag to scrub; a click on a bar goes to the start of its segment.
  let pressed = null;
  const timeAt = (event) => {
    const box = overlay.getBoundingClientRect();
    return clamp((event.clientX - box.left) / box.width, 0, 1) * panel.duration;
  };
  root.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.clientX < overlay.getBoundingClientRect().left) return;
    pressed = { x: event.clientX, bar: bars.get(event.target.closest(".bar")) };
    root.setPointerCapture(event.pointerId);
    overlay.focus({ preventScroll: true });
    event.preventDefault();
    if (pressed.bar) pick(pressed.bar);
    else seek(timeAt(event));
  });
  root.addEventListener("pointermove", (event) => {
    if (pressed && Math.abs(event.clientX - pressed.x) > 3) pressed.bar = null;
    if (pressed && !pressed.bar) seek(timeAt(event));
  });
  for (const name of ["pointerup", "pointercancel"]) root.addEventListener(name, () => { pressed = null; });

  return { node: root, show, follow, colour };
}
