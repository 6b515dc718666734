// One video with its controls; it owns the time, and the timeline, the map and the table follow it.

// The picture: a video when there is one, or the reason why not. The time can be moved either way.
function buildScreen(panel) {
  const { data, file, reason } = panel.video;
  if (reason) return { node: element("p", { class: "no-picture", role: "note" }, reason), video: null, close() {} };
  const address = data
    ? URL.createObjectURL(new Blob([decodeBase64(data.slice(data.indexOf(",") + 1))], { type: "video/mp4" }))
    : encodeURIComponent(file);
  const video = element("video", { src: address, preload: "auto", playsinline: true, tabindex: "-1", "aria-label": `Video ${panel.id}` });
  video.muted = true;
  const trouble = element("p", { class: "no-picture", role: "note", hidden: true });
  video.addEventListener("error", () => {
    trouble.textContent = file
      ? `The video could not be played. It lies in the file ${file}, which belongs beside this page.`
      : "This browser cannot play the video that is embedded in the page (H.264).";
    trouble.hidden = false;
    video.hidden = true;
  });
  const close = () => {
    video.pause();
    video.removeAttribute("src");
    video.load();
    if (data) URL.revokeObjectURL(address);
  };
  return { node: element("div", { class: "picture" }, video, trouble), video, close };
}

// Seeks one at a time: while the browser is busy with one, only the latest wish is remembered.
function patientSeek(video) {
  let wish = null;
  video.addEventListener("seeked", () => {
    if (wish === null) return;
    video.currentTime = wish;
    wish = null;
  });
  return (time) => {
    if (video.seeking) wish = time;
    else video.currentTime = time;
  };
}

function buildControls(panel, video, toggle) {
  const play = element("button", { type: "button", class: "play", "aria-label": "Play", title: "Play or pause (space)", onclick: toggle });
  const time = element("span", { class: "time" });
  const speed = element("select", { "aria-label": "Speed" },
    ...[0.25, 0.5, 1, 2, 4].map((rate) => element("option", { value: rate, selected: rate === 1 }, `${rate}×`)));
  speed.addEventListener("change", () => { if (video) video.playbackRate = Number(speed.value); });
  const whole = element("button", { type: "button", class: "whole", "aria-label": "Full screen", title: "Full screen" });
  whole.addEventListener("click", () => video?.requestFullscreen?.());
  for (const part of [play, speed, whole]) part.disabled = !video;
  const mark = () => {
    play.classList.toggle("playing", !video.paused);
    play.setAttribute("aria-label", video.paused ? "Play" : "Pause");
  };
  for (const name of ["play", "pause", "ended"]) video?.addEventListener(name, mark);
  return {
    node: element("div", { class: "controls" }, play, time, speed, whole),
    follow: (now) => { time.textContent = `${clock(now)} / ${clock(panel.duration)}`; },
  };
}

function buildMap(panel, map, seek) {
  const readout = element("output", { class: "readout" }, "similarity of clips");
  const frame = mapFrame(map, panel.truth ?? [], {
    label: `Similarity of every pair of ${map.clips} clips, from ${map.low.toFixed(2)} to ${map.high.toFixed(2)}`,
    scale: map, seek, readout,
  });
  const axis = element("div", { class: "map-axis", "aria-hidden": "true" },
    ...timeMarks(map.start, map.end, 6).map((mark) => element("span", { style: `left:${map.share(mark.time) * 100}%` }, mark.text)));
  const figure = element("figure", { class: "map" }, frame.node, axis,
    element("figcaption", {}, readout, colourBar(map)));
  return { node: figure, follow: frame.follow };
}

const KEYS = [["space", "play, pause"], ["← →", "step"], ["Home End", "start, end"], ["j k", "next, previous segment"]];

function keysHelp() {
  return element("p", { class: "keys" }, ...KEYS.map(([keys, what]) =>
    element("span", {}, ...keys.split(" ").map((key) => element("kbd", {}, key)), ` ${what}`)));
}

function buildPlayer(panel) {
  const screen = buildScreen(panel);
  const { video } = screen;
  const map = panel.map ? readMap(panel.map) : null;
  const spoken = element("p", { class: "unseen", "aria-live": "polite" });
  const sendVideo = video ? patientSeek(video) : () => {};
  let now = 0;
  let visible = panel.predictions ?? [];

  const show = (time) => {
    now = clamp(time, 0, panel.duration);
    for (const part of followers) part.follow(now);
  };
  const seek = (time) => {
    show(time);
    sendVideo(now);
  };
  const pick = (segment) => {
    seek(segment.start);
    table.reveal(segment);
    const score = segment.score === undefined ? "ground truth" : `score ${segment.score.toFixed(2)}`;
    spoken.textContent = `${segment.label}, ${segment.start.toFixed(1)} to ${segment.end.toFixed(1)} seconds, ${score}`;
  };
  const step = (direction) => {
    const stops = (visible.length ? visible : panel.truth ?? []).toSorted((a, b) => a.start - b.start);
    const next = direction > 0
      ? stops.find((one) => one.start > now + 1e-3)
      : stops.findLast((one) => one.start < now - 1e-3);
    if (next) pick(next);
  };
  const toggle = () => {
    if (!video) return;
    if (!video.paused) video.pause();
    else video.play().catch(() => {}); // the error event has told the reader
  };

  const controls = buildControls(panel, video, toggle);
  const timeline = buildTimeline(panel, map, { seek, pick });
  const table = buildTable(panel, { colour: timeline.colour, pick });
  const mapPart = map ? buildMap(panel, map, seek) : null;
  const followers = [controls, timeline, table, ...(mapPart ? [mapPart] : [])];
  const filter = buildFilter(panel, (kept) => {
    visible = kept;
    timeline.show(kept);
    table.show(kept);
    show(now);
  });

  const tick = () => {
    if (!video.paused) {
      show(video.currentTime);
      requestAnimationFrame(tick);
    }
  };
  video?.addEventListener("play", () => requestAnimationFrame(tick));
  video?.addEventListener("ended", () => show(panel.duration));

  const hasFound = (panel.predictions ?? []).length > 0;
  const listed = hasFound || (panel.truth ?? []).length > 0;
  const stage = element("div", { class: map ? "stage" : "stage alone" },
    element("div", { class: "screen" }, screen.node, controls.node), mapPart?.node ?? null);
  const node = element("div", { class: "player-body" }, stage, timeline.node,
    panel.predictions && !hasFound ? element("p", { class: "empty" }, "Nothing was found in this video.") : null,
    hasFound ? filter.node : null,
    listed ? element("div", { class: "scroll tall" }, table.node) : null,
    panel.note ? element("p", { class: "caption" }, panel.note) : null,
    keysHelp(), spoken);
  filter.apply();

  return {
    node,
    close: screen.close,
    keys: {
      " ": toggle,
      ArrowLeft: (many) => seek(now - panel.step * (many ? 5 : 1)),
      ArrowRight: (many) => seek(now + panel.step * (many ? 5 : 1)),
      Home: () => seek(0),
      End: () => seek(panel.duration),
      j: () => step(1),
      k: () => step(-1),
    },
  };
}
