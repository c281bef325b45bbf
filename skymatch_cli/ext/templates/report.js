"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // ---- before and after
  const slider = byId("slider");
  if (slider) {
    const move = () => byId("compare").style.setProperty("--cut", slider.value + "%");
    slider.addEventListener("input", move);
    move(); // browsers keep the place of a slider when a page is loaded again
  }

  // ---- tables: sort by a column, filter the rows
  const cellKey = (cell) => {
    const value = Number(cell.textContent);
    return Number.isNaN(value) || cell.textContent === "" ? cell.textContent : value;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const sortBy = (header) => {
    const table = header.closest("table");
    const numeric = header.classList.contains("n");
    const up = header.hasAttribute("aria-sort") ? header.getAttribute("aria-sort") === "descending" : true;
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [cellKey(row.cells[header.cellIndex]), row]);
    rows.sort(([a], [b]) => {
      const missing = numeric ? (typeof a === "string") - (typeof b === "string") : 0;
      return missing || (up ? compare(a, b) : compare(b, a));
    });
    body.append(...rows.map(([, row]) => row));
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) sortBy(button.closest("th"));
  });
  for (const input of document.querySelectorAll("input[type=search]")) {
    const rows = byId(input.dataset.table).tBodies[0].rows;
    const said = input.closest(".filter").querySelector("output");
    const filter = () => {
      const words = input.value.toLowerCase();
      let shown = 0;
      for (const row of rows) shown += !(row.hidden = !row.textContent.toLowerCase().includes(words));
      said.textContent = words ? shown + " of " + rows.length : "";
    };
    input.addEventListener("input", filter);
    filter();
  }

  // ---- map: what is under the pointer, or chosen with the keys
  const map = byId("map");
  if (!map) return;
  const picked = byId("picked");
  const rowOf = (shape) => byId("k" in shape.dataset ? "overlaps-" + shape.dataset.k : "images-" + shape.dataset.i);
  const steps = Array.from(map.querySelectorAll(".overlaps path"));
  const heads = Array.from(byId("overlaps").tHead.rows[0].cells);
  const pull = heads.findIndex((head) => head.querySelector("button").textContent === "pull");
  const size = (shape) => Math.abs(Number(rowOf(shape).cells[pull].textContent)) || 0;
  const sizes = new Map(steps.map((shape) => [shape, size(shape)]));
  steps.sort((a, b) => sizes.get(b) - sizes.get(a));
  let pinned = null;

  const describe = (shape) => {
    const row = rowOf(shape);
    const titles = row.closest("table").tHead.rows[0].cells;
    picked.textContent = "";
    Array.from(row.cells).forEach((cell, c) => {
      if (cell.textContent === "") return;
      const name = document.createElement("b");
      const unit = titles[c].querySelector("small");
      name.textContent = titles[c].querySelector("button").textContent + " ";
      picked.append(c ? " · " : "", name, cell.textContent + (unit ? " " + unit.textContent : ""));
    });
  };
  const mark = (shape) => {
    for (const old of document.querySelectorAll("#map .on, tr.on")) old.classList.remove("on");
    if (!shape) { picked.textContent = "Nothing chosen."; return; }
    shape.classList.add("on");
    rowOf(shape).classList.add("on");
    describe(shape);
  };
  const pin = (shape) => { pinned = shape; mark(shape); };
  map.addEventListener("pointerover", (event) => {
    const shape = event.target.closest("path[data-k], path[data-i]");
    if (shape) mark(shape);
  });
  map.addEventListener("pointerleave", () => mark(pinned));
  map.addEventListener("click", (event) => pin(event.target.closest("path[data-k], path[data-i]")));
  map.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && steps.length) {
      const at = steps.indexOf(pinned);
      pin(steps[at < 0 ? (step > 0 ? 0 : steps.length - 1) : (at + step + steps.length) % steps.length]);
    } else if (event.key === "Enter" && pinned) {
      const row = rowOf(pinned);
      row.hidden = false;
      row.scrollIntoView({ block: "center" });
      row.closest(".scroll").focus({ preventScroll: true });
    } else if (event.key === "Escape") {
      pin(null);
    } else {
      return;
    }
    event.preventDefault();
  });
})();
