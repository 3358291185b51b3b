// The viewer as an anywidget: answers come from the kernel as messages, never from a server's port.

/** Ask the kernel; several views of one widget tell their answers apart by `me`. */
function kernelSource(model) {
  const waiting = new Map();
  const me = Math.random().toString(36).slice(2);
  let asked = 0;
  const receive = (content, buffers) => {
    const one = waiting.get(content.id);
    if (!one) return;
    waiting.delete(content.id);
    if (content.error) return one.reject(new Error(content.error));
    const { buffer, byteOffset, byteLength } = buffers[0];
    one.resolve(buffer.slice(byteOffset, byteOffset + byteLength));
  };
  model.on("msg:custom", receive);
  return {
    get(path) {
      const id = `${me}-${asked++}`;
      const answer = new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
      model.send({ kind: "get", id, path });
      const drop = () => { if (waiting.delete(id)) model.send({ kind: "drop", ids: [id] }); };
      return { answer, drop };
    },
    close: () => model.off("msg:custom", receive),
  };
}

/** The widget's traits, shared with Python. */
function sharedState(model) {
  return {
    get: (name) => model.get(name),
    set(name, value) {
      model.set(name, value);
      model.save_changes();
    },
    on(name, act) {
      model.on(`change:${name}`, act);
      return () => model.off(`change:${name}`, act);
    },
  };
}

function render({ model, el }) {
  const source = kernelSource(model);
  el.style.setProperty("--wm-height", `${model.get("height_px")}px`);
  const viewer = new CaseViewer(el, model.get("scene"), source, sharedState(model));
  el.caseViewer = viewer;
  return () => {
    viewer.close();
    source.close();
  };
}

export default { render };
