// The side of the test's extension that runs in the notebook's web view, under VS Code's content security policy.
//
// Widgets are made and shown by `@vscode/jupyter-ipywidgets8`, the manager that Microsoft's Jupyter extension uses;
// a widget's own module (anywidget's) is found by RequireJS among files that lie beside this one, as that extension
// serves the files of a Python environment.

import { KernelConnection } from "@jupyterlab/services/lib/kernel/default";
import { ServerConnection } from "@jupyterlab/services";

const here = (name) => new URL(name, import.meta.url).toString();

/** A socket whose other end is the extension host. */
function socketTo(context) {
  return class {
    protocol = "v1.kernel.websocket.jupyter.org";
    binaryType = "arraybuffer";
    readyState = 0;

    constructor() {
      context.onDidReceiveMessage(({ frame }) => {
        if (frame) this.onmessage?.({ data: Uint8Array.from(atob(frame), (c) => c.charCodeAt(0)).buffer });
      });
      setTimeout(() => {
        this.readyState = 1;
        this.onopen?.({});
      });
    }

    send(data) {
      let text = "";
      for (const byte of new Uint8Array(data)) text += String.fromCharCode(byte);
      context.postMessage({ frame: btoa(text) });
    }

    close() {}
  };
}

function loadScript(address) {
  return new Promise((loaded, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: address, onload: loaded, onerror: () => failed(new Error(`no script ${address}`)) });
    document.head.append(script);
  });
}

/** Make the manager on the first model of a kernel that the extension tells of. */
async function makeManager(context) {
  const model = new Promise((tell) => context.onDidReceiveMessage((message) => message.model && tell(message.model)));
  await loadScript(here("require.js"));
  (await import(here("ipywidgets.js"))).activate();
  window.vscIPyWidgets8.load();
  const registered = new Set();
  const scripts = {
    widgetsRegisteredInRequireJs: registered,
    async loadWidgetScript(name) {
      window.requirejs.config({ paths: { [name]: here(`nbextensions/${name}/index`) } });
      registered.add(name);
    },
    errorHandler: (...what) => console.error("no widget", ...what),
    successHandler: () => {},
  };
  context.postMessage({ ready: true });
  const serverSettings = ServerConnection.makeSettings({ WebSocket: socketTo(context), wsUrl: "ws://extension/" });
  const kernel = new KernelConnection({ model: await model, serverSettings, handleComms: true });
  return new window.vscIPyWidgets.WidgetManager(kernel, document.body, scripts, () => {});
}

/** The model of a widget: its `comm_open` may come after the output that shows it. */
async function modelOf(manager, id) {
  for (;;) {
    if (manager.has_model(id)) return manager.get_model(id);
    await new Promise((again) => setTimeout(again, 50));
  }
}

export function activate(context) {
  const manager = makeManager(context);
  return {
    async renderOutputItem(item, element) {
      const made = await manager;
      const model = await modelOf(made, item.json().model_id);
      const view = await made.create_view(model, { el: element });
      await made.display_view(null, view, { node: element });
    },
  };
}
