"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // ---- the date of the file: the page itself holds none, so that the same result gives the same bytes
  const saved = new Date(document.lastModified);
  if (Date.now() - saved > 3000) { // a browser that doesn't know it says that it is now
    const two = (n) => String(n).padStart(2, "0");
    const day = [saved.getFullYear(), two(saved.getMonth() + 1), two(saved.getDate())].join("-");
    byId("saved").textContent = `; page written ${day} ${two(saved.getHours())}:${two(saved.getMinutes())}`;
  }
  addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });

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

  // ---- what is under the pointer on the map, or chosen with the keys
  const picked = byId("picked");
  if (!picked) return;
  const rowOf = (shape) => byId("k" in shape.dataset ? "overlaps-" + shape.dataset.k : "images-" + shape.dataset.i);
  const shapeOf = (target) => target.closest("path[data-k], path[data-i]");
  let pinned = null;
  let byKeys = false; // a page that scrolls under a pointer at rest takes nothing away from the keys

  const describe = (row) => {
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
    for (const old of document.querySelectorAll(".on")) old.classList.remove("on");
    byId("mark").setAttribute("d", shape ? shape.getAttribute("d") : ""); // drawn again, on top of what covers it
    const row = shape && rowOf(shape);
    if (!row) { picked.textContent = "Nothing chosen."; return; }
    row.classList.add("on");
    describe(row);
  };
  const pin = (shape) => { pinned = shape; mark(shape); };
  const map = byId("map");
  const hover = (event) => {
    const shape = shapeOf(event.target);
    if (shape && !byKeys) mark(shape);
  };
  map.addEventListener("pointerover", hover);
  map.addEventListener("pointermove", (event) => {
    if (!byKeys || !(event.movementX || event.movementY)) return;
    byKeys = false;
    hover(event);
  });
  map.addEventListener("pointerleave", () => mark(pinned));
  map.addEventListener("click", (event) => pin(shapeOf(event.target)));

  // ---- map: nearer and farther; one finger and the wheel alone scroll the page
  const { width, height } = map.viewBox.baseVal;
  const all = [[0, 0], [width, height]];
  const barText = byId("bar-text");
  const showBar = (magnified) => {
    const most = (Number(map.dataset.scale) * width) / 5 / magnified;
    const [unit, sign] = [[3600, "°"], [60, "′"], [0, "″"]].find(([least]) => most >= least);
    const angle = most / (unit || 1);
    const power = 10 ** Math.floor(Math.log10(angle));
    const round = [5, 2, 1].find((digit) => digit * power <= angle * (1 + 1e-9)) * power;
    const length = ((round * (unit || 1)) / Number(map.dataset.scale)) * magnified;
    byId("bar").setAttribute("d", `M0,0h${length.toFixed(1)}m0,-8v16M0,-8v16`);
    barText.textContent = Number(round.toPrecision(1)) + sign;
  };
  showBar(1);
  const zoom = d3.zoom().extent(all).translateExtent(all).scaleExtent([1, 64])
    .wheelDelta((event) => -Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY) * 0.01, 0.4))
    .filter((event) => {
      if (event.type === "wheel") return event.ctrlKey || event.metaKey;
      if (event.type.startsWith("touch")) return event.touches.length > 1 || d3.zoomTransform(map).k > 1;
      return !event.button;
    })
    .on("zoom", ({ transform }) => {
      byId("sky").setAttribute("transform", transform);
      map.style.setProperty("--zoom", transform.k); // names keep their size
      showBar(transform.k);
    });
  const seen = d3.select(map).call(zoom);
  const zoomBy = (factor) => zoom.scaleBy(seen, factor);
  const zoomAll = () => zoom.transform(seen, d3.zoomIdentity);
  byId("zoom-in").addEventListener("click", () => zoomBy(2));
  byId("zoom-out").addEventListener("click", () => zoomBy(0.5));
  byId("zoom-all").addEventListener("click", zoomAll);

  // ---- map: keys
  const steps = Array.from(map.querySelectorAll(".overlaps path"));
  const order = new Map(steps.map((shape) => [shape, rowOf(shape).rowIndex])); // largest pull first
  steps.sort((a, b) => order.get(a) - order.get(b));
  const bringIntoView = (shape) => {
    const { k, x, y } = d3.zoomTransform(map);
    const box = shape.getBBox();
    const [cx, cy] = [box.x + box.width / 2, box.y + box.height / 2];
    const outside = k * cx + x < 0 || k * cx + x > width || k * cy + y < 0 || k * cy + y > height;
    if (outside) zoom.translateTo(seen, cx, cy);
  };
  const zoomKeys = { "+": () => zoomBy(2), "=": () => zoomBy(2), "-": () => zoomBy(0.5), 0: zoomAll };
  map.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.key === "Tab") return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    byKeys = true;
    if (step && steps.length) {
      const at = steps.indexOf(pinned);
      pin(steps[at < 0 ? (step > 0 ? 0 : steps.length - 1) : (at + step + steps.length) % steps.length]);
      bringIntoView(pinned);
    } else if (event.key === "Enter" && pinned) {
      const row = rowOf(pinned);
      row.hidden = false;
      row.scrollIntoView({ block: "center" });
      row.closest(".scroll").focus({ preventScroll: true });
    } else if (event.key === "Escape") {
      pin(null);
    } else if (event.key in zoomKeys) {
      zoomKeys[event.key]();
    } else {
      return;
    }
    event.preventDefault();
  });
})();
