// Searches and sorts the cases that are in the page; without it they stand as they were written.
"use strict";
const toolbar = document.querySelector(".toolbar");
const list = document.querySelector(".cases");
const cases = [...list.children].map((item, order) => ({
  item,
  order,
  words: item.querySelector(".about").textContent.toLowerCase(),
  data: item.dataset,
}));
const [search, sort, only, status] = ["input[type=search]", "select", "input[type=checkbox]", "[role=status]"].map(
  (what) => toolbar.querySelector(what),
);
const names = new Intl.Collator(undefined, { numeric: true });
const orders = {
  order: (a, b) => a.order - b.order,
  name: (a, b) => names.compare(a.data.name, b.data.name),
};
for (const figure of ["doubts", "warnings", "tiles"]) {
  orders[figure] = (a, b) => b.data[figure] - a.data[figure] || a.order - b.order;
}

function filter() {
  const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { item, words, data } of cases) {
    item.hidden = (only.checked && data.warnings === "0") || !wanted.every((word) => words.includes(word));
    shown += item.hidden ? 0 : 1;
  }
  status.textContent = shown === cases.length ? "" : `${shown} of ${cases.length} cases`;
}

search.addEventListener("input", filter);
only.addEventListener("change", filter);
sort.addEventListener("change", () => list.append(...cases.sort(orders[sort.value]).map(({ item }) => item)));
toolbar.hidden = false;
filter(); // a browser that goes back to this page fills its fields again
sort.dispatchEvent(new Event("change"));
