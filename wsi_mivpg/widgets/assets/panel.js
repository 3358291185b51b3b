// The page around the slide: tabs, the report's sentences, settings of the map. Everything that comes from a report goes
// in as text, never as markup.

/** An element with properties, attributes (in `attributes`) and children; strings become text. */
function make(tag, { attributes = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child != null && child !== ""));
  return element;
}

function tabsOf(scene, choose) {
  if (scene.slides.length < 2) return null;
  const tabs = scene.slides.map((slide, number) =>
    make("button", { type: "button", className: "wm-tab", title: slide.id, onclick: () => choose(number), attributes: { role: "tab" } }, slide.id),
  );
  const list = make("div", { className: "wm-tabs", attributes: { role: "tablist", "aria-label": "Slides of the case" } }, ...tabs);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length;
    tabs[next].focus();
    choose(next);
  });
  list.show = (number) => tabs.forEach((tab, at) => {
    tab.setAttribute("aria-selected", String(at === number));
    tab.tabIndex = at === number ? 0 : -1;
  });
  return list;
}

function rowButton(row, number, choose) {
  const flag = make("span", { className: "wm-flag" });
  const remark = make("span", { className: "wm-remark", hidden: true });
  const button = make(
    "button",
    { type: "button", className: row.is_sentence ? "wm-row" : "wm-row wm-other", onclick: () => choose(number), attributes: { "aria-pressed": "false" } },
    make("span", { className: "wm-words" }, row.text),
    remark,
    flag,
  );
  /** Say how many of the chosen tiles support this row; "" to say nothing. */
  button.mark = (words) => {
    flag.textContent = words;
    button.classList.toggle("wm-supported", words !== "");
  };
  /** Say what is to beware of in the map by this method. */
  button.warn = (method) => {
    remark.textContent = row.remarks[method] ?? "";
    remark.hidden = !remark.textContent;
  };
  return button;
}

function setting(label, control, output = null) {
  return make("label", { className: "wm-setting" }, make("span", {}, label), control, output);
}

function slider(name, value, change) {
  const output = make("output", {});
  const input = make("input", { type: "range", min: 0, max: 100, step: 1, name });
  input.oninput = () => change(input.valueAsNumber / 100);
  return { input, output, show: (share) => { input.value = Math.round(share * 100); output.textContent = `${Math.round(share * 100)} %`; } };
}

function choice(name, options, change) {
  const select = make("select", { name }, ...Object.entries(options).map(([value, text]) => make("option", { value }, text)));
  select.onchange = () => change(select.value);
  return select;
}

/** Settings of the map; `set(name, value)` is told what was chosen. */
function mapSettings(scene, set) {
  const method = choice("method", Object.fromEntries(scene.methods.map((one) => [one, one])), (value) => set("method", value));
  const scale = choice("scale", { rank: "rank among the tiles", raw: "weight itself" }, (value) => set("scale", value));
  const colours = choice("colours", Object.fromEntries(Object.keys(COLOURS).map((one) => [one, one])), (value) => set("colours", value));
  const opacity = slider("opacity", 0, (value) => set("opacity", value));
  const threshold = slider("threshold", 0, (value) => set("threshold", value));
  const bar = make("div", { className: "wm-bar", attributes: { role: "img" } });
  const low = make("span");
  const high = make("span");
  const box = make(
    "fieldset", { className: "wm-map" }, make("legend", {}, "Map"),
    make("div", { className: "wm-legend" }, bar, make("div", { className: "wm-ends" }, low, high)),
    setting("Opacity", opacity.input, opacity.output), setting("Hide below", threshold.input, threshold.output),
    setting("Scale", scale), setting("Colours", colours), scene.methods.length > 1 ? setting("Method", method) : null,
  );
  box.show = (state, ends) => {
    opacity.show(state.opacity);
    threshold.show(state.threshold);
    Object.assign(scale, { value: state.scale });
    Object.assign(colours, { value: state.colours });
    Object.assign(method, { value: state.method });
    const share = Math.round(state.threshold * 100);
    const stops = COLOURS[state.colours].join(", ");
    bar.style.background = `linear-gradient(to right, var(--wm-well) ${share}%, transparent ${share}%), linear-gradient(to right, ${stops})`;
    [low.textContent, high.textContent] = state.scale === "raw" && ends ? ends.map(shortNumber) : ["lowest tile", "highest tile"];
    bar.setAttribute("aria-label", `Colours from ${low.textContent} to ${high.textContent}`);
  };
  return box;
}

function shortNumber(value) {
  return value === 0 ? "0" : Math.abs(value) < 0.01 || Math.abs(value) >= 10000 ? value.toExponential(1) : value.toPrecision(2);
}

/** A bar of a round length (1, 2 or 5 times a power of ten) that takes up to a fifth of the width. */
function scaleBar(mpp, umPerPx, widthPx) {
  if (!mpp) return null;
  const most = (umPerPx * widthPx) / 5;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].find((step) => step * power <= most) * power;
  return { px: length / umPerPx, label: length >= 1000 ? `${length / 1000} mm` : `${Number(length.toPrecision(1))} µm` };
}
