// The table of segments and the slider that hides the weak ones.

const COLUMNS = {
  label: { title: "label", of: (one) => one.label },
  start: { title: "start (s)", of: (one) => one.start, text: (one) => one.start.toFixed(2) },
  end: { title: "end (s)", of: (one) => one.end, text: (one) => one.end.toFixed(2) },
  length: { title: "length (s)", of: (one) => one.end - one.start, text: (one) => (one.end - one.start).toFixed(2) },
  score: { title: "score", of: (one) => one.score ?? -Infinity },
  overlap: { title: "tIoU", of: (one) => one.overlap ?? -Infinity, text: (one) => one.overlap?.toFixed(2) ?? "–" },
};

function scoreCell(segment, best) {
  if (segment.score === undefined) return element("td", { class: "number score" }, "–");
  const share = clamp(segment.score / Math.max(best, 1e-12), 0, 1);
  return element("td", { class: "number score" },
    element("i", { class: "meter", style: `--share:${share.toFixed(3)}`, "aria-hidden": "true" }), segment.score.toFixed(3));
}

function segmentRow(segment, keys, colour, best) {
  const cells = keys.map((key) => {
    if (key === "label") {
      const swatch = element("i", { class: "swatch", style: segment.score === undefined ? "" : `--colour:${colour(segment.label)}` });
      return element("th", { scope: "row" }, swatch, segment.label);
    }
    return key === "score" ? scoreCell(segment, best) : element("td", { class: `number ${key}` }, COLUMNS[key].text(segment));
  });
  return element("tr", { tabindex: "-1", class: segment.score === undefined ? "truth" : "found" }, ...cells);
}

function buildTable(panel, { colour, pick }) {
  const predictions = panel.predictions ?? [];
  const keys = Object.keys(COLUMNS).filter((key) => key !== "overlap" || (panel.truth && panel.predictions));
  const best = Math.max(...predictions.map((one) => one.score), 0);
  const rows = new Map();
  const body = (name, segments) => {
    const group = element("tbody", { class: name });
    for (const segment of segments) {
      const row = segmentRow(segment, keys, colour, best);
      rows.set(row, segment);
      group.append(row);
    }
    return group;
  };
  const bodies = [body("found", predictions), body("truth", panel.truth ?? [])];
  const heads = keys.map((key) => element("th", { scope: "col", class: key === "label" ? "" : `number ${key}` },
    element("button", { type: "button", onclick: () => sort(key, order.key === key ? -order.sign : key === "score" ? -1 : 1) },
      COLUMNS[key].title)));
  const order = { key: "start", sign: 1 };

  function sort(key, sign) {
    Object.assign(order, { key, sign });
    const of = COLUMNS[key].of;
    const sorted = [...rows].sort(([, a], [, b]) => {
      const [first, second] = [of(a), of(b)];
      return (first < second ? -sign : first > second ? sign : 0) || a.start - b.start;
    });
    for (const [row] of sorted) row.parentNode.append(row);
    heads.forEach((head, index) => {
      if (keys[index] === key) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  }

  const table = element("table", { class: "segments" },
    element("caption", { class: "unseen" }, `Segments of ${panel.id}; Enter goes to the start of one.`),
    element("thead", {}, element("tr", {}, ...heads)), ...bodies);
  sort("start", 1);

  const seen = () => [...table.querySelectorAll("tbody tr")].filter((row) => !row.hidden);
  // One row is in the tab order; the arrow keys move from row to row.
  const rove = (row) => {
    for (const other of rows.keys()) other.tabIndex = -1;
    if (row) row.tabIndex = 0;
  };
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tbody tr");
    if (row) { rove(row); pick(rows.get(row)); }
  });
  table.addEventListener("keydown", (event) => {
    const row = event.target.closest("tbody tr");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") pick(rows.get(row));
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const all = seen();
      const next = all[all.indexOf(row) + (event.key === "ArrowDown" ? 1 : -1)];
      if (next) { rove(next); next.focus(); }
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  return {
    node: table,
    show(visible) {
      const kept = new Set(visible);
      for (const [row, segment] of rows) row.hidden = segment.score !== undefined && !kept.has(segment);
      rove(seen()[0]);
    },
    follow(time) {
      for (const [row, segment] of rows) {
        const now = segment.start <= time && time < segment.end;
        if (now === row.classList.contains("now")) continue;
        row.classList.toggle("now", now);
        if (now) row.setAttribute("aria-current", "true");
        else row.removeAttribute("aria-current");
      }
    },
    reveal(segment) {
      for (const [row, one] of rows) {
        row.classList.toggle("picked", one === segment);
        if (one === segment) row.scrollIntoView({ block: "nearest" });
      }
    },
  };
}

// How many predictions have which score, drawn above the slider.
function histogram(scores, range) {
  const counts = new Array(40).fill(0);
  const width = Math.max(range.high - range.low, 1e-12);
  for (const score of scores) counts[clamp(Math.floor((score - range.low) / width * 40), 0, 39)] += 1;
  const most = Math.max(...counts);
  return element("div", { class: "histogram", "aria-hidden": "true" },
    ...counts.map((count) => element("i", { style: `height:${count ? 12 + 88 * Math.sqrt(count / most) : 0}%` })));
}

function buildFilter(panel, show) {
  const predictions = panel.predictions ?? [];
  const range = scoreRange(predictions);
  const step = 10 ** Math.floor(Math.log10(Math.max(range.high - range.low, 1e-9) / 100));
  const digits = Math.max(2, -Math.round(Math.log10(step)));
  const top = Math.floor(range.high / step) * step;
  // The slider rounds to its steps: downwards, so that the segment that gave the threshold is still shown.
  const first = Math.floor((panel.threshold ?? range.low) / step + 1e-6) * step;
  const slider = element("input", {
    type: "range", class: "threshold", min: range.low, max: top, step, "aria-label": "Lowest score that is shown",
    value: clamp(first, range.low, top),
  });
  const limit = element("output", { class: "limit" });
  const count = element("output", { class: "count", "aria-live": "polite" });
  const bars = histogram(predictions.map((one) => one.score), range);
  const apply = () => {
    const least = Number(slider.value);
    // Decimal steps do not fall on binary scores: half a step of a thousandth is forgiven.
    const visible = predictions.filter((one) => one.score >= least - step * 1e-3);
    limit.textContent = least.toFixed(digits);
    count.textContent = `${visible.length} of ${predictions.length} shown`;
    slider.setAttribute("aria-valuetext", `score at least ${least.toFixed(digits)}, ${count.textContent}`);
    [...bars.children].forEach((bar, index) => {
      bar.classList.toggle("cut", range.low + (index + 1) / 40 * (range.high - range.low) <= least);
    });
    show(visible);
  };
  slider.addEventListener("input", apply);
  const node = element("div", { class: "filter" },
    element("label", {}, element("span", {}, "score at least ", limit), element("div", { class: "slide" }, bars, slider)), count);
  return { node, apply };
}
