// Draws the charts one after the other, and tells a trial's story when its mark is clicked.
const { renderer, charts, rows } = JSON.parse(document.getElementById("data").textContent);
const panel = document.getElementById("story");
const views = (window.views = {});

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}
let stories = null;

function add(parent, tag, text = "", kind = "") {
  const element = parent.appendChild(document.createElement(tag));
  element.textContent = text; // never markup: others wrote it
  element.className = kind;
  return element;
}

function list(parent, pairs) {
  const element = add(parent, "dl");
  for (const [name, value] of pairs) {
    add(element, "dt", name);
    add(element, "dd", value);
  }
}

async function tell(trial) {
  stories ??= unpack("stories");
  const story = (await stories)[trial];
  if (!story) return;
  panel.replaceChildren();
  add(panel, "h2", story.title);
  add(panel, "button", "Close").addEventListener("click", close);
  list(panel, story.facts);
  for (const [title, text] of [["Its author’s reason", story.motivation], ["Why it has no score", story.reason]]) {
    if (text) {
      add(panel, "h3", title);
      add(panel, "pre", text);
    }
  }
  if (story.diff) {
    add(panel, "h3", "What it changed in its parent");
    const block = add(panel, "pre", "", "diff");
    for (const line of story.diff.split("\n")) {
      add(block, "span", line + "\n", line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : "same");
    }
  }
  if (story.checks.length) {
    add(panel, "h3", "Its certificate");
    list(panel, story.checks);
  }
  panel.hidden = false;
  panel.scrollTop = 0;
}

function close() {
  panel.hidden = true;
}

addEventListener("keydown", (event) => event.key === "Escape" && close());

async function draw(element) {
  const name = element.dataset.chart;
  const { usermeta, ...spec } = charts[name];
  spec.datasets = Object.fromEntries(usermeta.rows.map((key) => [key, structuredClone(rows[key])]));
  const options = { renderer, ast: true, actions: { export: true, source: false, compiled: false, editor: false } };
  const { view } = await vegaEmbed(element, spec, options);
  view.addEventListener("click", (event, item) => item?.datum?.trial && tell(item.datum.trial));
  views[name] = view;
}

for (const element of document.querySelectorAll("[data-chart]")) {
  try {
    await draw(element);
  } catch (error) {
    element.textContent = `This chart can't be drawn: ${error.message}`;
  }
  await new Promise((resume) => setTimeout(resume)); // the page answers meanwhile
}
document.documentElement.dataset.drawn = "yes";
performance.mark("drawn");
