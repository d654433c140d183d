// Live updates by server-sent events, and the readout under the pointer on charts. Without scripts the pages still work.
"use strict";

const page = document.body.dataset.live;
const connection = document.getElementById("connection");

function replace(id, html) {
  const part = document.getElementById(id);
  if (!part) return;
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const link = focused && focused.getAttribute("href");
  const opened = new Map([...part.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
  const before = part.querySelector(".log");
  const place = before && { atEnd: before.scrollTop + before.clientHeight >= before.scrollHeight - 4, top: before.scrollTop };
  const focusedLog = before && before === document.activeElement;
  part.innerHTML = html;
  const log = part.querySelector(".log");
  if (log && place) { log.scrollTop = place.atEnd ? log.scrollHeight : place.top; if (focusedLog) log.focus(); }
  for (const [name, open] of opened) {
    const details = document.getElementById(name);
    if (details) details.open = open;
  }
  if (link) part.querySelector(`[href="${CSS.escape(link)}"]`)?.focus();
}

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

function show(event, lines) {
  readout.replaceChildren(...lines.map((line) => {
    const row = document.createElement("div");
    row.textContent = line;
    return row;
  }));
  readout.hidden = false;
  const width = readout.offsetWidth;
  const left = event.clientX + 14 + width > innerWidth ? event.clientX - 14 - width : event.clientX + 14;
  readout.style.left = `${Math.max(4, left)}px`;
  readout.style.top = `${event.clientY + 14}px`;
}

document.addEventListener("pointermove", (event) => {
  const marker = event.target.closest?.("a.marker");
  if (marker) return show(event, [marker.dataset.text]);
  const svg = event.target.closest?.(".plot svg");
  if (!svg) { readout.hidden = true; return; }
  const data = JSON.parse(svg.parentElement.dataset.series);
  if (!data.x.length) { readout.hidden = true; return; }
  const box = svg.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width;
  let best = 0;
  data.x.forEach((each, place) => { if (Math.abs(each - x) < Math.abs(data.x[best] - x)) best = place; });
  const at = new Date(data.at[best] * 1000).toISOString().slice(11, 19);
  show(event, [`${at} UTC`, ...data.names.map((name, row) => `${name}: ${data.values[row][best]} ${data.unit}`)]);
});

document.addEventListener("click", (event) => {
  const marker = event.target.closest?.("a.marker");
  if (!marker) return;
  const row = document.getElementById(marker.getAttribute("href").slice(1));
  if (row) { event.preventDefault(); row.scrollIntoView({ block: "center" }); row.tabIndex = -1; row.focus(); }
});
