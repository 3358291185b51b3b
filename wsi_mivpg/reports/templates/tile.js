// The dialog that shows one tile large and lists what it supports.
const ORDINAL = new Intl.PluralRules("en", { type: "ordinal" });
const ENDING = { one: "st", two: "nd", few: "rd", other: "th" };

function makeTileDialog(tiles, slides, goTo) {
  const dialog = document.getElementById("tile");
  const part = (selector) => dialog.querySelector(selector);
  const figures = (number) => number.toLocaleString("en").replaceAll(",", "\u202f");
  let current = null;
  part("[data-do=close]").addEventListener("click", () => dialog.close());
  part("[data-do=find]").addEventListener("click", () => {
    dialog.close();
    slideOf(current).find(current);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  const slideOf = (index) => slides.find((slide) => slide.slide === tiles[index].slide);

  function entry(key, [rank, weight]) {
    const item = document.createElement("li");
    const how = document.createElement("span");
    how.textContent = `${rank}${ENDING[ORDINAL.select(rank)]} of its tiles, ${weight}`;
    if (key === "report") {
      item.append("The whole report: ", how);
      return item;
    }
    const link = document.createElement("a");
    const sentence = document.getElementById(key);
    link.href = `#${key}`;
    link.textContent = `Sentence ${key.slice("sentence-".length)}`;
    link.addEventListener("click", (event) => {
      event.preventDefault();
      dialog.close();
      goTo(key);
    });
    const words = document.createElement("bdi");
    // All but its number; where numbers in it are marked, it has several parts.
    words.textContent = [...sentence.childNodes].slice(1).map((node) => node.textContent).join("");
    // Where the tile does not explain the sentence, this is said here too.
    if (sentence.classList.contains("random")) how.textContent += "; no better than random";
    item.append(link, " · ", how, words);
    return item;
  }

  return (index) => {
    const tile = tiles[index];
    const picture = document.getElementById(`picture-${index}`);
    current = index;
    part("h2").textContent = `Tile at x ${figures(tile.x)}, y ${figures(tile.y)}`;
    part(".picture").style.display = picture ? "" : "none";
    part(".body").classList.toggle("bare", !picture);
    part("use").setAttribute("href", picture ? `#picture-${index}` : "");
    const slide = document.createElement("bdi");
    slide.textContent = tile.slide;
    part(".where").replaceChildren("Slide ", slide, `, ${tile.about}`);
    part("[data-do=find]").hidden = !slideOf(index)?.zooms;
    part("ol").replaceChildren(...Object.entries(tile.supports).map(([key, how]) => entry(key, how)));
    dialog.showModal();
  };
}
