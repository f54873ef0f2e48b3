"use strict";
// The address keeps what was chosen, so a link shows the same view: #sort=<table>:<column>:<asc|desc>&open=<task>&theme=dark
(() => {
  const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");

  function keep(name, value) {
    state.set(name, value);
    history.replaceState(null, "", "#" + decodeURIComponent(state.toString()));
  }

  function compare(a, b, sign) {
    const [x, y] = [a.dataset.v, b.dataset.v];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // what is missing stays last
    const [m, n] = [Number(x), Number(y)];
    const order = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y) : m - n;
    return sign * order;
  }

  function sort(table, column, direction) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const none = document.createElement("td");
    const cell = (row) => row.cells[column] || none;
    const rows = [...body.rows].sort((a, b) => compare(cell(a), cell(b), direction === "asc" ? 1 : -1));
    body.append(...rows);
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", direction === "asc" ? "ascending" : "descending");
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const first = [...table.tBodies[0].rows].map((row) => row.cells[column]?.dataset.v).find((v) => v !== undefined);
        const start = column > 0 && first !== undefined && !Number.isNaN(Number(first)) ? "desc" : "asc";
        const now = head.getAttribute("aria-sort");
        const direction = now === null ? start : now === "ascending" ? "desc" : "asc";
        sort(table, column, direction);
        keep("sort", `${table.id}:${column}:${direction}`);
      });
    });
  }

  function open(id) {
    const panel = document.getElementById(id);
    if (panel instanceof HTMLDetailsElement) {
      panel.open = true;
      panel.scrollIntoView();
    }
  }

  // Links to a task's details open them; without this script they lead to the closed panel.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link) return;
    if (link.classList.contains("play")) {
      event.preventDefault();
      const player = link.closest("details").querySelector(".player");
      player.hidden = false;
      player.querySelector("figcaption").textContent = link.title;
      const video = player.querySelector("video");
      video.src = link.getAttribute("href");
      video.play().catch((error) => { player.querySelector("figcaption").textContent = `${link.title}: ${error.message}`; });
      player.scrollIntoView({ block: "nearest" });
    } else if (link.hash && document.getElementById(link.hash.slice(1)) instanceof HTMLDetailsElement) {
      event.preventDefault();
      open(link.hash.slice(1));
      keep("open", link.hash.slice(1));
    }
  });

  document.addEventListener("pointerover", (event) => {
    const part = event.target.closest("[data-c]");
    const scene = event.target.closest("section.scene");
    for (const other of document.querySelectorAll(".focus")) other.classList.remove("focus");
    for (const other of document.querySelectorAll(".hot")) other.classList.remove("hot");
    if (!part || !scene) return;
    scene.classList.add("focus");
    for (const other of scene.querySelectorAll(`[data-c="${part.dataset.c}"]`)) other.classList.add("hot");
  });

  function paint(theme) { document.documentElement.dataset.theme = theme; }
  document.getElementById("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    paint(dark ? "light" : "dark");
    keep("theme", dark ? "light" : "dark");
  });

  if (state.get("theme") === "dark" || state.get("theme") === "light") paint(state.get("theme"));
  const [id, column, direction] = (state.get("sort") || "").split(":");
  const table = id ? document.getElementById(id) : null;
  if (table && Number(column) < table.tHead.rows[0].cells.length) sort(table, Number(column), direction === "asc" ? "asc" : "desc");
  if (state.get("open")) open(state.get("open"));
})();
