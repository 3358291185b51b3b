// The viewer as a page of `wsi-mivpg view`: answers come from the same server, the state lives in the page.

function serverSource() {
  return {
    get(path) {
      const stop = new AbortController();
      const answer = fetch(`answer/${path.split("/").map(encodeURIComponent).join("/")}`, { signal: stop.signal }).then(async (response) => {
        if (!response.ok) throw new Error(await response.text());
        return response.arrayBuffer();
      });
      return { answer, drop: () => stop.abort() };
    },
  };
}

function pageState(values) {
  const acts = new Map();
  return {
    get: (name) => values[name],
    set(name, value) {
      values[name] = value;
      for (const act of acts.get(name) || []) act();
    },
    on(name, act) {
      if (!acts.has(name)) acts.set(name, new Set());
      acts.get(name).add(act);
      return () => acts.get(name).delete(act);
    },
  };
}

async function open() {
  const root = document.querySelector("main");
  const source = serverSource();
  try {
    const scene = JSON.parse(new TextDecoder().decode(await source.get("scene").answer));
    const first = { slide: 0, opacity: 0.55, threshold: 0, scale: "rank", colours: "viridis", selected: [], ...scene.first };
    root.caseViewer = new CaseViewer(root, scene, source, pageState(first));
  } catch (problem) {
    root.textContent = String(problem.message || problem);
  }
}

open();
