document.documentElement.classList.add("js");
for (const viewer of document.querySelectorAll(".viewer")) {
  const layer = (name) => viewer.querySelector("." + name);
  for (const input of viewer.querySelectorAll("input[data-layer]")) {
    const target = layer(input.dataset.layer);
    const output = input.parentElement.querySelector("output");
    const show = () => {
      if (input.type === "checkbox") target.style.visibility = input.checked ? "" : "hidden";
      else target.style.opacity = input.value / 100;
      if (output) output.textContent = input.value + "\u202f%";
    };
    input.addEventListener("input", show);
    show();
  }
}
for (const item of document.querySelectorAll("[data-tile]")) {
  const box = document.getElementById("tile-" + item.dataset.tile);
  if (!box) continue;
  const mark = (on) => () => box.classList.toggle("lit", on);
  for (const event of ["pointerenter", "focus"]) item.addEventListener(event, mark(true));
  for (const event of ["pointerleave", "blur"]) item.addEventListener(event, mark(false));
}
