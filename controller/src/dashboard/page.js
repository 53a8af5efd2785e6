// Draws the rows from /live. Everything shown goes through textContent: nothing of it is ever read as markup.
"use strict";

const MOST_EVENTS = 200;
const byId = (id) => document.getElementById(id);

function cell(content, kind) {
  const td = document.createElement("td");
  if (kind) td.className = kind;
  if (content instanceof Node) td.append(content); else td.textContent = content;
  return td;
}

function row(cells) {
  const tr = document.createElement("tr");
  tr.append(...cells);
  return tr;
}

function fill(id, rows, count, empty) {
  const body = byId(id).tBodies[0];
  if (rows.length === 0) {
    const td = cell(empty, "none");
    td.colSpan = byId(id).tHead.rows[0].cells.length;
    rows = [row([td])];
  }
  body.replaceChildren(...rows);
  byId(id + "-count").textContent = count;
}

function bar(permille) {
  const holder = document.createElement("span");
  const track = document.createElement("span");
  track.className = "bar";
  const filled = document.createElement("i");
  filled.style.width = Math.min(permille / 10, 100) + "%";
  filled.className = permille > 900 ? "bad" : permille > 700 ? "warn" : "";
  track.append(filled);
  holder.append(track, (permille / 10).toFixed(1) + " %");
  return holder;
}

const cpu = (milli) => (milli / 1000).toFixed(milli < 10000 ? 2 : 0);

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (count >= 1024 && at < units.length - 1) { count /= 1024; at += 1; }
  return (at === 0 || count >= 100 ? count.toFixed(0) : count.toFixed(1)) + " " + units[at];
}

const NODE_KIND = { up: "good", unknown: "warn", down: "bad" };
const STATE_KIND = { ready: "good", unknown: "bad", stopping: "warn", parked: "warn", ended: "bad" };

function nodeRow(node) {
  const state = node.state === "active" ? node.liveness : node.liveness + ", " + node.state;
  return row([
    cell(node.name),
    cell(bar(node.load_permille)),
    cell(cpu(node.used.cpu_milli) + " of " + cpu(node.capacity.cpu_milli)),
    cell(bytes(node.used.memory_bytes) + " of " + bytes(node.capacity.memory_bytes)),
    cell(node.replicas),
    cell(state, NODE_KIND[node.liveness]),
  ]);
}

function appRow(app) {
  const name = app.tenant && app.tenant !== "default" ? app.tenant + "/" + app.app : app.app;
  const why = [app.policy, app.reason].filter(Boolean).join(": ");
  return row([
    cell(name),
    cell(app.wanted),
    cell(app.ready, app.ready >= app.wanted ? "good" : "warn"),
    cell(app.starting),
    cell(app.stopping + app.parked),
    cell(app.unplaced, app.unplaced > 0 ? "bad" : ""),
    cell(why, "why"),
  ]);
}

function replicaRow(replica) {
  return row([
    cell(replica.id),
    cell(replica.app),
    cell(replica.node),
    cell(replica.attempt > 1 ? replica.state + " (attempt " + replica.attempt + ")" : replica.state, STATE_KIND[replica.state]),
    cell(replica.activity),
    cell(replica.address),
    cell(replica.reason, "why"),
  ]);
}

function eventRow(event) {
  return row([
    cell(new Date(event.at_unix_ms).toLocaleTimeString()),
    cell(event.kind.replaceAll("_", " ")),
    cell(event.app),
    cell(event.replica),
    cell(event.node),
    cell(event.reason, "why"),
  ]);
}

function drawState(state) {
  byId("cluster").textContent = state.cluster;
  const role = state.leading ? "leading" : "not leading";
  byId("status").textContent = role + (state.observing ? ", observing" : "") + ", fence " + state.fence + ", version " + state.version;
  byId("status").className = "";
  const up = state.nodes.filter((node) => node.liveness === "up").length;
  fill("nodes", state.nodes.map(nodeRow), up + " of " + state.nodes.length + " up", "No node has joined yet.");
  fill("apps", state.apps.map(appRow), String(state.apps.length), "No app is declared yet.");
  const shown = state.replicas.length < state.replicas_total ? "the first " + state.replicas.length + " of " : "";
  fill("replicas", state.replicas.map(replicaRow), shown + state.replicas_total, "No copy runs.");
}

function drawEvents(events) {
  const body = byId("events").tBodies[0];
  body.prepend(...events.map(eventRow).reverse());
  while (body.rows.length > MOST_EVENTS) body.deleteRow(-1);
}

const live = new EventSource("/live");
live.addEventListener("open", () => byId("events").tBodies[0].replaceChildren());
live.addEventListener("state", (message) => drawState(JSON.parse(message.data)));
live.addEventListener("events", (message) => drawEvents(JSON.parse(message.data)));
live.addEventListener("error", () => {
  byId("status").textContent = "no connection to the controller; trying again";
  byId("status").className = "lost";
});
