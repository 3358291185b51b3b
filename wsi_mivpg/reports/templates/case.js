// The page: pointing at a sentence, or moving to it, shows its map and its tiles; a click or Enter keeps them.
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = document.documentElement;
  const sentences = [...document.querySelectorAll("a.sentence")];
  const cards = [...document.querySelectorAll(".evidence")];
  const status = document.querySelector(".showing");
  page.classList.add("js");
  const slides = [...document.querySelectorAll(".viewer")].map((figure, index) =>
    makeSlide(figure, data.panels[index], data.tiles, (tile) => openTile(tile)));
  const openTile = makeTileDialog(data.tiles, slides, keepAndGoTo);
  let kept = "report";
  let shown = null;

  function show(key) {
    if (key === shown) return;
    shown = key;
    for (const slide of slides) slide.show(key, data.shown[key]);
    for (const sentence of sentences) sentence.classList.toggle("active", sentence.dataset.key === key);
    for (const card of cards) card.classList.toggle("active", card.dataset.key === key);
    if (!status) return;
    const name = document.createElement("b");
    name.textContent = key === "report" ? "whole report" : key.replace("-", " ");
    const none = key !== "report" && !data.panels.some((panel) => key in panel.maps);
    status.replaceChildren(none ? "No map of " : key === "report" ? "Map of the " : "Map of ", name);
  }

  function keep(key) {
    kept = key;
    for (const sentence of sentences) {
      if (sentence.dataset.key === key) sentence.setAttribute("aria-current", "true");
      else sentence.removeAttribute("aria-current");
    }
    show(key);
  }

  function keepAndGoTo(key) {
    keep(key);
    const sentence = document.getElementById(key);
    sentence.focus();
    sentence.scrollIntoView({ block: "nearest" });
  }

  for (const sentence of sentences) {
    const key = sentence.dataset.key;
    sentence.addEventListener("pointerenter", () => show(key));
    sentence.addEventListener("pointerleave", () => show(kept));
    sentence.addEventListener("focus", () => show(key));
    sentence.addEventListener("blur", () => show(kept));
    sentence.addEventListener("click", (event) => {
      event.preventDefault();
      keep(key);
      // From the keyboard the tiles come next.
      if (event.detail === 0) document.getElementById(`evidence-${key}`).focus();
    });
  }
  for (const link of document.querySelectorAll(".back")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      keepAndGoTo(link.hash.slice(1));
    });
  }
  const release = () => {
    // Focus goes back with it, also where another sentence's evidence has meanwhile taken its place.
    if (kept !== "report" && document.activeElement.matches("body, .evidence, .evidence *")) document.getElementById(kept).focus();
    keep("report");
  };
  for (const button of document.querySelectorAll("[data-do=report]")) button.addEventListener("click", release);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) release();
  });

  for (const button of document.querySelectorAll("button.tile")) {
    const index = Number(button.dataset.tile);
    const light = (on) => () => slides.forEach((slide) => slide.light(index, on));
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, light(true));
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, light(false));
    button.addEventListener("click", () => openTile(index));
  }

  for (const input of document.querySelectorAll("input[data-layer]")) {
    const output = input.parentElement.querySelector("output");
    const apply = () => {
      const value = input.type === "checkbox" ? input.checked : input.value / 100;
      for (const slide of slides) slide.layer(input.dataset.layer, value);
      if (output) output.textContent = `${input.value}\u202f%`;
    };
    input.addEventListener("input", apply);
    apply();
  }

  for (const button of document.querySelectorAll("[data-do=large]")) {
    const viewer = button.closest(".viewer");
    button.addEventListener("click", () => {
      const large = viewer.classList.toggle("large");
      viewer.parentElement.classList.toggle("single", large);
      button.setAttribute("aria-pressed", large);
    });
  }

  show("report");
}
