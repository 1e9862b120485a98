"use strict";
// Sorts, filters and scrolls the table of episodes. Only rows in sight are in the document, so 10,000 rows stay quick.
(() => {
  const data = JSON.parse(document.getElementById("episodes-data").textContent);
  const region = document.getElementById("episodes-rows");
  const table = region.querySelector("table");
  const body = table.tBodies[0];
  const status = document.getElementById("episodes-status");
  const controls = [...document.querySelectorAll("[data-filter]")];
  const heads = [...table.tHead.rows[0].cells];
  const texts = data.rows.map((row) => row.map((cell) => (cell === null ? "" : String(cell))).join("\n").toLowerCase());
  const SPARE = 12;
  let order = data.rows.map((_, i) => i);
  let sorted = { column: -1, up: true };
  let height = 31;
  let shown = [-1, -1];

  const compare = (column, up) => (a, b) => {
    const x = data.rows[a][column];
    const y = data.rows[b][column];
    if (x === null || y === null) return (x === null) - (y === null) || a - b; // what is not known comes last
    const difference = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
    return (up ? difference : -difference) || a - b;
  };

  function choose() {
    const wanted = controls.map((control) => {
      const column = Number(control.dataset.filter);
      if (control.type === "checkbox") return control.checked ? (i) => data.details.includes(data.rows[i][0]) : null;
      const text = control.value.trim().toLowerCase();
      if (!text) return null;
      if (column < 0) return (i) => text.split(/\s+/).every((word) => texts[i].includes(word));
      return (i) => String(data.rows[i][column]) === control.value;
    });
    const tests = wanted.filter(Boolean);
    order = data.rows.map((_, i) => i).filter((i) => tests.every((test) => test(i)));
    if (sorted.column >= 0) order.sort(compare(sorted.column, sorted.up));
    status.textContent = `${order.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} episodes`;
    table.setAttribute("aria-rowcount", String(order.length + 1));
    region.scrollTop = 0;
    shown = [-1, -1];
    draw();
  }

  function cellOf(row, column) {
    const cell = document.createElement(column === data.name ? "th" : "td");
    if (column === data.name) cell.scope = "row";
    if (data.numbers.includes(column)) cell.className = "n";
    const value = row[column];
    const text = value === null ? "" : typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 3 }) : value;
    const name = document.createElement("bdi");
    name.textContent = text;
    if (column === data.name && data.details.includes(row[0])) {
      const link = document.createElement("a");
      link.href = `#episode-${row[0]}`;
      link.append(name);
      cell.append(link);
    } else {
      cell.append(name);
    }
    if (typeof value === "string" && value.length > 24) cell.title = value;
    return cell;
  }

  function gap(rows) {
    const row = document.createElement("tr");
    row.className = "gap";
    row.setAttribute("aria-hidden", "true");
    const cell = document.createElement("td");
    cell.colSpan = heads.length;
    cell.style.height = `${rows * height}px`;
    row.append(cell);
    return row;
  }

  function draw(everything) {
    const sight = Math.ceil(region.clientHeight / height) || 20;
    const top = Math.max(0, Math.floor(region.scrollTop / height));
    if (!everything && shown[0] >= 0 && shown[0] <= Math.max(0, top - 2) && shown[1] >= Math.min(order.length, top + sight + 2)) return;
    const first = everything ? 0 : Math.max(0, top - SPARE);
    const last = everything ? order.length : Math.min(order.length, top + sight + SPARE);
    const focused = document.activeElement && body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const rows = document.createDocumentFragment();
    if (first) rows.append(gap(first));
    for (let at = first; at < last; at += 1) {
      const row = document.createElement("tr");
      row.setAttribute("aria-rowindex", String(at + 2));
      data.rows[order[at]].forEach((_, column) => row.append(cellOf(data.rows[order[at]], column)));
      rows.append(row);
    }
    if (last < order.length) rows.append(gap(order.length - last));
    body.replaceChildren(rows);
    if (focused) body.querySelector(`a[href="${focused}"]`)?.focus({ preventScroll: true });
    shown = [first, last];
  }

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      sorted = { column, up: sorted.column === column ? !sorted.up : !data.numbers.includes(column) || column === 0 };
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
      choose();
    });
  });
  controls.forEach((control) => control.addEventListener(control.type === "search" ? "input" : "change", choose));
  region.addEventListener("scroll", () => requestAnimationFrame(() => draw()), { passive: true });
  addEventListener("resize", () => draw());
  addEventListener("beforeprint", () => { if (order.length <= 1000) draw(true); });
  addEventListener("afterprint", () => { shown = [-1, -1]; draw(); });
  choose();
  const row = body.querySelector("tr:not(.gap)");
  if (row && row.offsetHeight && row.offsetHeight !== height) {
    height = row.offsetHeight;
    choose();
  }
})();
