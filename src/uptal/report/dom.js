// Small helpers: elements, numbers, colours. Text only ever enters the page as text, never as markup.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function clock(seconds, digits = 1) {
  const units = 10 ** digits;
  const total = Math.round(Math.max(seconds, 0) * units);
  const minutes = Math.floor(total / (60 * units));
  const rest = ((total - minutes * 60 * units) / units).toFixed(digits);
  return `${minutes}:${rest.padStart(digits ? digits + 3 : 2, "0")}`;
}

// Round distances between marks on a time axis, in seconds.
const TIME_STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

function timeMarks(start, end, most) {
  const step = TIME_STEPS.find((one) => (end - start) / one <= most) ?? (end - start) / most;
  const first = Math.ceil(start / step - 1e-9);
  const count = Math.floor(end / step + 1e-9) - first + 1;
  const digits = step < 1 ? 1 : 0;
  return Array.from({ length: Math.max(count, 0) }, (_, index) => {
    const time = (first + index) * step;
    return { time, text: end >= 60 ? clock(time, digits) : `${time.toFixed(digits)} s` };
  });
}

// Labels at the ends of an axis stay inside it.
const endStyle = (percent) => percent < 4 ? "start" : percent > 96 ? "end" : "";

// Hues for labels, red-green-blue; green is kept for the ground truth.
const LABEL_COLOURS = [
  "66 124 214", "224 117 48", "146 96 206", "20 154 176", "212 76 140", "190 143 20", "204 70 70", "112 126 148",
];

function decodeBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let index = 0; index < letters.length; index++) bytes[index] = letters.charCodeAt(index);
  return bytes;
}

const readData = (node) => JSON.parse(node.textContent);
