// Live updates by server-sent events, and the readout of charts. Without scripts the pages still work.
"use strict";

const page = document.body.dataset.live;
const connection = document.getElementById("connection");
const held = new Map(); // parts with selected text, by id: they are replaced once nothing is selected

function selects(part) {
  const selection = getSelection();
  return !selection.isCollapsed && part.contains(selection.anchorNode);
}

// How the focused element is found again in the new content.
function place(element, part) {
  if (!element || element === part || !part.contains(element)) return null;
  if (element.id) return `#${CSS.escape(element.id)}`;
  if (element.tagName === "SUMMARY") return `#${CSS.escape(element.parentElement.id)} > summary`;
  const link = element.getAttribute("href");
  return link && `[href="${CSS.escape(link)}"]`;
}

function replace(id, html) {
  const part = document.getElementById(id);
  if (!part) return;
  if (selects(part)) { held.set(id, html); return; }
  held.delete(id);
  const focused = place(document.activeElement, part);
  const opened = [...part.querySelectorAll("details[id]")].map((each) => [each.id, each.open]);
  const scrolled = [...part.querySelectorAll(".log, .decisions")].map((each) => ({
    id: each.id, top: each.scrollTop, follow: each.matches(".log") && each.scrollTop + each.clientHeight >= each.scrollHeight - 4,
  }));
  part.innerHTML = html;
  for (const [name, open] of opened) {
    const details = document.getElementById(name);
    if (details) details.open = open;
  }
  for (const { id: name, top, follow } of scrolled) {
    const box = document.getElementById(name);
    if (box) box.scrollTop = follow ? box.scrollHeight : top;
  }
  const again = focused && part.querySelector(focused);
  if (again) { if (again.matches("li")) again.tabIndex = -1; again.focus({ preventScroll: true }); }
}

document.addEventListener("selectionchange", () => {
  for (const [id, html] of [...held]) replace(id, html);
});

for (const log of document.querySelectorAll(".log")) log.scrollTop = log.scrollHeight;

if (page) {
  const source = new EventSource(page);
  source.onmessage = (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) replace(id, html);
  };
  source.onopen = () => { connection.textContent = "live"; connection.classList.remove("lost"); };
  source.onerror = () => {
    connection.textContent = source.readyState === EventSource.CLOSED ? "signed out: reload" : "reconnecting";
    connection.classList.add("lost");
  };
}

const readout = document.createElement("div");
readout.className = "readout";
readout.hidden = true;
document.body.append(readout);

function show(x, y, lines) {
  readout.replaceChildren(...lines.map((line) => {
    const row = document.createElement("div");
    row.textContent = line;
    return row;
  }));
  readout.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = readout;
  const left = x + 14 + width > innerWidth ? x - 14 - width : x + 14;
  const top = y + 14 + height > innerHeight ? y - 14 - height : y + 14;
  readout.style.left = `${Math.max(4, left)}px`;
  readout.style.top = `${Math.max(4, top)}px`;
}

// The decisions of a pin. The title becomes its label, or the browser would show it as well.
function decisions(marker) {
  const title = marker.querySelector("title");
  if (title) { marker.setAttribute("aria-label", title.textContent); title.remove(); }
  const lines = marker.getAttribute("aria-label").split("\n");
  return lines.length > 8 ? [...lines.slice(0, 7), `and ${lines.length - 7} more, below`] : lines;
}

document.addEventListener("pointermove", (event) => {
  const marker = event.target.closest?.("a.marker");
  if (marker) return show(event.clientX, event.clientY, decisions(marker));
  const svg = event.target.closest?.(".plot svg");
  if (!svg) { readout.hidden = true; return; }
  const data = JSON.parse(svg.parentElement.dataset.series);
  if (!data.x.length) { readout.hidden = true; return; }
  const box = svg.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width;
  let best = 0;
  data.x.forEach((each, number) => { if (Math.abs(each - x) < Math.abs(data.x[best] - x)) best = number; });
  const at = new Date(data.at[best] * 1000).toISOString();
  show(event.clientX, event.clientY, [
    `${data.days ? at.slice(0, 16).replace("T", " ") : at.slice(11, 19)} UTC`,
    ...data.names.map((name, row) => `${name}: ${data.values[row][best]} ${data.unit}`),
  ]);
});

document.addEventListener("focusin", (event) => {
  const marker = event.target.closest?.("a.marker");
  if (!marker || !marker.matches(":focus-visible")) { readout.hidden = true; return; }
  const box = marker.getBoundingClientRect();
  show(box.left + box.width / 2, box.top, decisions(marker));
});

document.addEventListener("keydown", (event) => { if (event.key === "Escape") readout.hidden = true; });

document.addEventListener("click", (event) => {
  const marker = event.target.closest?.("a.marker");
  if (!marker) return;
  const row = document.getElementById(marker.getAttribute("href").slice(1));
  if (row) { event.preventDefault(); row.scrollIntoView({ block: "center" }); row.tabIndex = -1; row.focus(); }
});
