// Draws the timeline, and sorts and searches the table of the packages. All else on the page is there without a script.

const SVG = "http://www.w3.org/2000/svg";
const AXIS = 18;
const ROW = 22;
const GAP = 4;
// Pixels. A narrower step is drawn in one piece with its neighbours, so that any number of packages is drawn at once.
const NARROW = 1;
// Seconds between two steps of a package during which its row is kept for it.
const PAUSE = 1;
const MOST_ZOOM = 64;
// The first columns of the table hold text, the others numbers.
const TEXTS = 2;
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];

const { packages, steps, spans, stages, seconds } = JSON.parse(document.getElementById("data").textContent);
const scroll = document.getElementById("scroll");
const chart = document.getElementById("chart");
const tip = document.getElementById("tip");
let zoom = 1;
let found = null;

// --- The timeline ---

// Gives each span a row. The spans of a package that follow each other stay in one row.
function placed() {
  const runs = [];
  const latest = new Map();
  for (const [name, step, began, length, whole] of spans) {
    const span = { name, step, began, ended: began + length, whole };
    const run = latest.get(name);
    if (run !== undefined && began >= run.ended && began - run.ended < PAUSE) {
      run.spans.push(span);
      run.ended = span.ended;
    } else {
      const next = { name, began, ended: span.ended, spans: [span] };
      latest.set(name, next);
      runs.push(next);
    }
  }
  const rows = [];
  for (const run of runs) {
    let row = rows.find((each) => each.ended <= run.began);
    if (row === undefined) {
      row = { ended: 0, runs: [] };
      rows.push(row);
    }
    row.ended = run.ended;
    row.runs.push(run);
  }
  return rows;
}

const rows = placed();

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function clock(moment) {
  const whole = Math.round(moment);
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${two(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

function fitting(text, width) {
  const room = Math.floor((width - 6) / 6.2);
  if (text.length <= room) return text;
  return room < 4 ? "" : `${text.slice(0, room - 1)}\u2026`;
}

function draw() {
  const width = Math.max(200, Math.floor(scroll.clientWidth * zoom));
  const height = AXIS + (rows.length + 1) * (ROW + GAP) + GAP;
  const scale = width / (seconds || 1);
  const drawn = document.createDocumentFragment();
  chart.setAttribute("width", width);
  chart.setAttribute("height", height);
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.dataset.scale = scale;

  const tick = TICKS.find((each) => each * scale >= 80) || TICKS[TICKS.length - 1];
  for (let at = 0; at <= seconds; at += tick) {
    const x = (at * scale).toFixed(2);
    drawn.append(element("line", { x1: x, x2: x, y1: 0, y2: height }));
    drawn.append(element("text", { x: at * scale + 3, y: 12, class: "axis" }, clock(at)));
  }
  stages.forEach(([name, began, length]) => {
    const attributes = { x: (began * scale).toFixed(2), y: AXIS, height: ROW };
    drawn.append(element("rect", { ...attributes, width: (length * scale).toFixed(2), class: "stage" }));
    const label = fitting(name, length * scale);
    if (label) drawn.append(element("text", { x: began * scale + 4, y: AXIS + 15 }, label));
  });
  rows.forEach((row, index) => drawRow(drawn, row, AXIS + (index + 1) * (ROW + GAP), scale));
  chart.replaceChildren(drawn);
}

function drawRow(drawn, row, y, scale) {
  const box = (from, to, step, kind) => {
    const attributes = { x: from.toFixed(2), y, width: (to - from).toFixed(2), height: ROW, class: kind };
    const rect = element("rect", attributes);
    rect.style.fill = `var(--step${step % 8})`;
    drawn.append(rect);
    return rect;
  };
  // Narrow steps that touch each other, at most two pixels of them, in the colour of the longest kind of step.
  let narrow = null;
  const flush = () => {
    if (narrow === null) return;
    const step = narrow.lengths.indexOf(Math.max(...narrow.lengths));
    const rect = box(narrow.from, Math.max(narrow.to, narrow.from + NARROW / 2), step, narrow.match ? "" : "other");
    rect.dataset.first = narrow.first;
    rect.dataset.last = narrow.last;
    narrow = null;
  };
  for (const run of row.runs) {
    const match = found === null || found.has(run.name);
    for (const span of run.spans) {
      const from = span.began * scale;
      const to = span.ended * scale;
      if (to - from < NARROW) {
        if (narrow !== null && (from - narrow.to >= NARROW / 2 || to - narrow.from > 2 * NARROW)) flush();
        narrow = narrow || { from, match: false, first: run.name, lengths: steps.map(() => 0) };
        narrow.lengths[span.step] += to - from;
        narrow.to = to;
        narrow.last = run.name;
        narrow.match = narrow.match || match;
        continue;
      }
      flush();
      const rect = box(from, to, span.step, `${span.whole ? "" : "broken "}${match ? "" : "other"}`);
      rect.dataset.package = packages[run.name];
      rect.dataset.step = steps[span.step];
      rect.dataset.began = span.began;
      rect.dataset.seconds = span.ended - span.began;
    }
  }
  flush();
  for (const run of row.runs) {
    const label = fitting(packages[run.name], (run.ended - run.began) * scale);
    if (label) drawn.append(element("text", { x: run.began * scale + 4, y: y + 15, class: "name" }, label));
  }
}

function zoomTo(wanted) {
  const next = Math.min(MOST_ZOOM, Math.max(1, wanted));
  const middle = (scroll.scrollLeft + scroll.clientWidth / 2) / zoom;
  zoom = next;
  draw();
  scroll.scrollLeft = middle * zoom - scroll.clientWidth / 2;
}

function describe(rect) {
  const { package: name, step, began, seconds: length, first, last } = rect.dataset;
  if (name !== undefined) {
    const text = `${name}: ${step}, ${Number(length).toFixed(1)} s, from ${clock(Number(began))}`;
    return rect.classList.contains("broken") ? `${text}, not finished` : text;
  }
  if (first === undefined) return "";
  return first === last ? packages[first] : `short steps, from ${packages[first]} to ${packages[last]}`;
}

chart.addEventListener("pointermove", (event) => {
  const text = describe(event.target);
  tip.hidden = text === "";
  tip.textContent = text;
  tip.style.left = `${Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.clientY + 16}px`;
});
chart.addEventListener("pointerleave", () => {
  tip.hidden = true;
});
document.getElementById("closer").addEventListener("click", () => zoomTo(zoom * 2));
document.getElementById("wider").addEventListener("click", () => zoomTo(zoom / 2));
document.getElementById("whole").addEventListener("click", () => zoomTo(1));
window.addEventListener("beforeprint", () => zoomTo(1));
let width = scroll.clientWidth;
new ResizeObserver(() => {
  if (scroll.clientWidth === width) return;
  width = scroll.clientWidth;
  draw();
}).observe(scroll);

const legend = document.getElementById("legend");
steps.forEach((name, index) => {
  const key = document.createElement("span");
  key.className = "key";
  key.style.background = `var(--step${index % 8})`;
  legend.append(key, name);
});

// --- The table ---

const table = document.getElementById("packages");
const groups = Array.from(table.tBodies);
const GROUP = groups[0].rows.length;
const headings = Array.from(table.tHead.rows[0].cells);
const entries = Array.from(table.querySelectorAll("tbody tr"), (row, index) => {
  const text = `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase();
  return { row, index, text };
});
const count = document.getElementById("count");

function valueOf(entry, column, numeric) {
  const text = entry.row.cells[column].textContent;
  return numeric ? Number(text || -1) : text;
}

function sortBy(column) {
  const heading = headings[column];
  const numeric = column >= TEXTS;
  const before = heading.getAttribute("aria-sort");
  const ascending = before === null ? !numeric : before === "descending";
  for (const each of headings) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const values = new Map(entries.map((entry) => [entry, valueOf(entry, column, numeric)]));
  const compare = numeric ? (a, b) => a - b : (a, b) => (a < b ? -1 : Number(a > b));
  entries.sort((a, b) => (ascending ? 1 : -1) * compare(values.get(a), values.get(b)) || a.index - b.index);
  groups.forEach((group, index) => {
    group.append(...entries.slice(index * GROUP, (index + 1) * GROUP).map((entry) => entry.row));
  });
}

function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  found = words.length === 0 ? null : new Set();
  let shown = 0;
  for (const entry of entries) {
    const matches = words.every((word) => entry.text.includes(word));
    if (entry.row.hidden === matches) entry.row.hidden = !matches;
    shown += Number(matches);
    if (matches && found !== null) found.add(Number(entry.row.dataset.package));
  }
  count.textContent = `${shown} of ${entries.length}`;
  draw();
}

headings.forEach((heading, column) => {
  heading.firstElementChild.addEventListener("click", () => sortBy(column));
});
const input = document.getElementById("search");
input.addEventListener("input", () => search(input.value));
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== input) {
    event.preventDefault();
    input.focus();
  }
});

// A browser keeps what was typed when the page is loaded again.
search(input.value);
// In the second frame from now, the first one is on the screen.
requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("drawn")));
