// Brings the page to life: players with their chooser and the keyboard, curves, grids.

const players = [];

function wirePlayer(section) {
  // A panel's data may hold megabytes of video: it is read when the panel is first opened.
  const panels = [...section.querySelectorAll(".panel-data")].map((node) => ({ node, data: null }));
  const title = element("h2");
  const chooser = element("select", { class: "chooser", "aria-label": "Video" },
    ...panels.map(({ node }, index) => element("option", { value: index }, node.dataset.name)));
  const state = { section, open: null };
  const choose = (index) => {
    const panel = (panels[index].data ??= readData(panels[index].node));
    state.open?.close();
    state.open?.node.remove();
    state.open = buildPlayer(panel);
    title.textContent = panel.id;
    section.append(state.open.node);
  };
  chooser.addEventListener("change", () => choose(Number(chooser.value)));
  const several = panels.length > 1;
  section.prepend(element("div", { class: "player-head" }, title,
    several ? element("label", { class: "choose" }, `${panels.length} videos `, chooser) : null));
  choose(0);
  players.push(state);
}

function isOnScreen(node) {
  const box = node.getBoundingClientRect();
  return box.bottom > 0 && box.top < innerHeight;
}

// Keys go to the player that holds the focus, else to the first one on the screen; a page without one scrolls as usual.
function playerForKeys() {
  return players.find(({ section }) => section.contains(document.activeElement))
    ?? players.find(({ section }) => isOnScreen(section));
}

function ownsKeys(target, key) {
  if (target.closest("input, select, textarea, summary, a")) return true;
  return key === " " && target.closest("button") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || ownsKeys(event.target, event.key)) return;
  const act = playerForKeys()?.open.keys[event.key];
  if (!act) return;
  act(event.shiftKey);
  event.preventDefault();
});

document.querySelectorAll(".player").forEach(wirePlayer);
document.querySelectorAll(".plot").forEach(wireCurve);
document.querySelectorAll(".grid-figure").forEach(buildGrid);
