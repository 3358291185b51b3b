// The side of the test's extension that runs in VS Code's extension host: a notebook controller for one kernel.
//
// Microsoft's Jupyter extension is not to be had from npm; its widget manager is. What the extension does for
// widgets is done here in small: cells are executed over one connection to the kernel, and every frame of a second
// connection goes to the notebook's web view and back, as text, since messages between the two carry no buffers.

import { KernelConnection } from "@jupyterlab/services/lib/kernel/default";
import { ServerConnection } from "@jupyterlab/services";
import * as vscode from "vscode";
import WebSocket from "ws";

const RENDERER = "kernel-for-the-test.widgets";

class NodeSocket extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols);
    this.binaryType = "arraybuffer";
  }
}

/** Start a kernel of the Jupyter server that the environment names. */
async function startKernel() {
  const address = process.env.JUPYTER_ADDRESS;
  const token = process.env.JUPYTER_TOKEN;
  const settings = ServerConnection.makeSettings({
    baseUrl: address,
    wsUrl: address.replace("http", "ws"),
    token,
    appendToken: true,
    WebSocket: NodeSocket,
    fetch,
  });
  const reply = await fetch(`${address}api/kernels?token=${token}`, {
    method: "POST",
    body: JSON.stringify({ name: "python3" }),
  });
  if (!reply.ok) throw new Error(`the server started no kernel: ${reply.status} ${await reply.text()}`);
  const model = await reply.json();
  const kernel = new KernelConnection({ model, serverSettings: settings, handleComms: false });
  await kernel.info;
  const relay = new NodeSocket(
    `${settings.wsUrl}api/kernels/${model.id}/channels?session_id=of-the-web-view&token=${token}`,
    "v1.kernel.websocket.jupyter.org",
  );
  return { kernel, relay, model };
}

/** Pass frames between the kernel and the web view; those that come before it is ready wait. */
function relayFrames({ relay, model }, messaging) {
  const early = [];
  let ready = false;
  relay.on("message", (data) => {
    const frame = { frame: Buffer.from(data).toString("base64") };
    if (ready) messaging.postMessage(frame);
    else early.push(frame);
  });
  messaging.onDidReceiveMessage(({ message }) => {
    if (message.ready) {
      messaging.postMessage({ model });
      early.splice(0).forEach((frame) => messaging.postMessage(frame));
      ready = true;
    } else if (message.frame) {
      relay.send(Buffer.from(message.frame, "base64"));
    }
  });
}

function itemsOf(data) {
  return Object.entries(data).map(([mime, value]) =>
    typeof value === "string"
      ? vscode.NotebookCellOutputItem.text(value, mime)
      : vscode.NotebookCellOutputItem.json(value, mime),
  );
}

/** What a message of the kernel adds to a cell's output. */
function outputOf({ header, content }) {
  const of = (items) => new vscode.NotebookCellOutput(items);
  if (header.msg_type === "stream") return of([vscode.NotebookCellOutputItem.stdout(content.text)]);
  if (header.msg_type === "display_data" || header.msg_type === "execute_result") return of(itemsOf(content.data));
  if (header.msg_type === "error") {
    return of([vscode.NotebookCellOutputItem.error({ name: content.ename, message: content.traceback.join("\n") })]);
  }
  return null;
}

async function run(cell, kernel, controller) {
  const execution = controller.createNotebookCellExecution(cell);
  execution.start(Date.now());
  await execution.clearOutput();
  const asked = kernel.requestExecute({ code: cell.document.getText() });
  const written = [];
  asked.onIOPub = (message) => {
    const output = outputOf(message);
    if (output) written.push(execution.appendOutput(output));
  };
  const reply = await asked.done;
  await Promise.all(written);
  execution.end(reply.content.status === "ok", Date.now());
}

export function activate(context) {
  const messaging = vscode.notebooks.createRendererMessaging(RENDERER);
  const controller = vscode.notebooks.createNotebookController("one-kernel", "jupyter-notebook", "One kernel");
  const started = startKernel().then((one) => {
    relayFrames(one, messaging);
    return one.kernel;
  });
  let last = started;
  controller.supportedLanguages = ["python"];
  controller.executeHandler = (cells) => {
    for (const cell of cells) last = last.then(async () => run(cell, await started, controller));
    return last;
  };
  context.subscriptions.push(controller);
}
