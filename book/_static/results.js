/* Sorting and filtering of the results table. Without this script the table stands there whole. */
(() => {
  "use strict";
  const box = document.querySelector(".results");
  if (!box) return;
  const body = box.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...box.querySelectorAll("th[data-key]")];
  const keys = heads.map((head) => head.dataset.key);
  const value = (row, key) => {
    const cell = row.cells[keys.indexOf(key)];
    return cell.dataset.value ?? cell.textContent;
  };
  const number = (text) => (text === "" ? NaN : Number(text));
  const original = new Map(rows.map((row, index) => [row, index]));
  const controls = document.createElement("form");
  controls.className = "results-controls";
  controls.setAttribute("aria-label", "Filter and sort the results");
  const count = document.createElement("p");
  count.className = "results-count";
  count.setAttribute("role", "status");
  const filters = new Map();
  let sorted = { key: null, down: false };

  const labelled = (text, control) => {
    const label = document.createElement("label");
    label.append(text, control);
    controls.append(label);
    return control;
  };
  const option = (text, chosen) => new Option(text, chosen);

  function compare(one, two, key) {
    if (key === null) return original.get(one) - original.get(two);
    const [a, b] = [value(one, key), value(two, key)];
    if (!heads[keys.indexOf(key)].hasAttribute("data-numeric")) {
      return (sorted.down ? -1 : 1) * a.localeCompare(b, "en", { numeric: true }) || original.get(one) - original.get(two);
    }
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // nothing known comes last
    return (sorted.down ? y - x : x - y) || original.get(one) - original.get(two);
  }

  function sort(key, down) {
    sorted = { key, down };
    body.append(...rows.sort((one, two) => compare(one, two, key)));
    for (const head of heads) {
      if (head.dataset.key === key) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    order.value = key === null ? "" : `${key}|${down ? "down" : "up"}`;
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = [...filters].every(([key, select]) => select.value === "" || value(row, key) === select.value);
      row.hidden = !(fits && words.every((word) => text.includes(word)));
      left += !row.hidden;
    }
    count.textContent = `${left} of ${rows.length} results shown.`;
  }

  for (const key of box.dataset.filters.split(",")) {
    const held = [...new Set(rows.map((row) => value(row, key)))];
    if (held.length < 2) continue;
    held.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const select = labelled(key, document.createElement("select"));
    select.append(option("all", ""), ...held.map((name) => option(name, name)));
    select.name = key.replaceAll(" ", "_");
    filters.set(key, select);
  }
  const search = labelled("any words", document.createElement("input"));
  search.type = "search";
  search.name = "words";
  const order = labelled("order", document.createElement("select"));
  order.append(option("as recorded", ""));
  for (const key of keys) {
    const ends = heads[keys.indexOf(key)].hasAttribute("data-numeric") ? ["smallest first", "largest first"] : ["a to z", "z to a"];
    order.append(option(`${key}, ${ends[0]}`, `${key}|up`), option(`${key}, ${ends[1]}`, `${key}|down`));
  }
  const all = document.createElement("button");
  all.type = "reset";
  all.textContent = "show all";
  controls.append(all);
  box.querySelector("caption").remove();
  box.prepend(controls, count);

  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("input", filter);
  controls.addEventListener("reset", () => setTimeout(() => { filter(); sort(null, false); }));
  order.addEventListener("change", () => {
    const [key, way] = order.value.split("|");
    sort(key || null, way === "down");
  });
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const again = sorted.key === head.dataset.key;
      sort(head.dataset.key, again ? !sorted.down : head.hasAttribute("data-numeric") && head.dataset.key !== "labels");
    });
  }

  // A link may name filters, as in results.html?task=trec&labels=200, or a row, which then opens.
  for (const [name, chosen] of new URLSearchParams(location.search)) {
    const control = controls.elements.namedItem(name);
    if (control) control.value = chosen;
  }
  function open() {
    const row = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const folded = row && rows.includes(row) && row.querySelector("details");
    if (!folded) return;
    row.hidden = false;
    folded.open = true;
    row.scrollIntoView({ block: "center" });
  }
  filter();
  open();
  addEventListener("hashchange", open);
})();
