// Drives one Chromium over JupyterLab and HTML pages. The first line on stdin is the browser's settings; each line after
// it is a visit, a JSON list of actions on a page of its own, and is answered by a line of JSON results on stdout.
//
//   {"do": "open", "url": ...}                     {"do": "wait", "selector": ..., "count": 1}
//   {"do": "theme", "dark": true}                  {"do": "gone", "selector": ...}, {"do": "unseen", ...}
//   {"do": "click", "selector": ..., "nth": 0}     {"do": "text", "selector": ...}          -> list of strings
//   {"do": "hover", "selector": ..., "x": 0.5}     {"do": "count", "selector": ...}         -> number
//   {"do": "drag", "selector": ..., "x": 0.2, "to": 0.4}    {"do": "fill", "selector": ..., "text": ...}
//   {"do": "select", "selector": ..., "value": ...}         {"do": "download", ..., "value": ..., "path": ...} -> name
//   {"do": "press", "key": ...}                    {"do": "attribute", "selector": ..., "name": ...} -> list
//   {"do": "run_all"}                              {"do": "idle"}: the kernel ran every cell
//   {"do": "canvas", "selector": ...} -> hash      {"do": "changes", "selector": ..., "times": 3}: the canvas was redrawn
//   {"do": "save"}                                 {"do": "screenshot", "path": ..., "selector": null}
//   {"do": "scroll", "selector": ...}              {"do": "size", "width": ..., "height": ...}
//   {"do": "fill", "selector": ..., "value": ...}  {"do": "select", "selector": ..., "label": ...}
//   {"do": "evaluate", "script": ...} -> its value
//   {"do": "accessible", "selector": ...} -> rules of WCAG 2 A and AA that it breaks, each with the node (axe-core)
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

// Only this machine may be asked for anything; what a page tries elsewhere is reported. Not by Playwright's routes: they
// turn the cache off, and JupyterLab takes seconds to load without it.
const HERE = ["127.0.0.1", "localhost"];
const ONLY_HERE = `MAP * ~NOTFOUND, ${HERE.map((host) => `EXCLUDE ${host}`).join(", ")}`;

const AXE = fileURLToPath(new URL("node_modules/axe-core/axe.min.js", import.meta.url));

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { executable, profile } = JSON.parse((await lines.next()).value);
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
const context = await chromium.launchPersistentContext(profile, {
  executablePath: executable,
  headless: true,
  args: [...flags, "--disable-component-update", "--disable-sync", `--host-resolver-rules=${ONLY_HERE}`],
});
let page = null; // of the visit
let timeout = 0;
let token = "";
for (let line = await lines.next(); !line.done; line = await lines.next()) {
  process.stdout.write(`${JSON.stringify(await visit(JSON.parse(line.value)))}\n`);
}
await context.close();

async function visit(order) {
  ({ timeout, token } = order);
  const elsewhere = [];
  const problems = [];
  const results = [];
  let failure = null;
  page = await context.newPage();
  await page.setViewportSize({ width: order.width, height: order.height });
  page.setDefaultTimeout(timeout);
  page.on("request", (request) => {
    const { protocol, hostname } = new URL(request.url());
    if (protocol.startsWith("http") && !HERE.includes(hostname)) elsewhere.push(request.url());
  });
  page.on("pageerror", (error) => problems.push(error.stack ?? String(error)));
  page.on("console", (message) => message.type() === "error" && problems.push(`${message.text()} (${message.location().url})`));
  for (const action of order.actions) {
    try {
      results.push((await Promise.race([perform(action), late()])) ?? null);
    } catch (error) {
      failure = `${JSON.stringify(action)}: ${error.message}`;
      break;
    }
  }
  if (failure) {
    const last = [...order.actions].reverse().find((action) => action.do === "screenshot");
    if (last) await page.screenshot({ path: last.path }).catch(() => {});
  }
  await page.close();
  return { results, failure, problems, elsewhere };
}

// Page scripts have no time limit of their own.
function late() {
  return new Promise((_, fail) => setTimeout(() => fail(new Error(`took longer than ${2 * timeout} ms`)), 2 * timeout).unref());
}

async function perform(action) {
  const found = action.selector ? page.locator(action.selector) : null;
  switch (action.do) {
    case "open": {
      await page.goto(action.url + (token ? `${action.url.includes("?") ? "&" : "?"}token=${token}` : ""));
      return;
    }
    case "wait":
      await found.nth((action.count ?? 1) - 1).waitFor({ state: "visible" });
      return;
    case "gone":
      await page.waitForFunction((selector) => !document.querySelector(selector), action.selector);
      return;
    case "unseen": // there is none, or none is in sight
      await page.waitForFunction((selector) => [...document.querySelectorAll(selector)].every((node) => !node.checkVisibility()), action.selector);
      return;
    case "click":
      await found.nth(action.nth ?? 0).click();
      return;
    case "hover": {
      const box = await found.nth(action.nth ?? 0).boundingBox();
      await page.mouse.move(box.x + box.width * (action.x ?? 0.5), box.y + box.height * (action.y ?? 0.5));
      return;
    }
    case "drag": {
      const box = await found.nth(action.nth ?? 0).boundingBox();
      const y = box.y + box.height / 2;
      await page.mouse.move(box.x + box.width * action.x, y);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * action.to, y, { steps: 4 });
      await page.mouse.up();
      return;
    }
    case "fill":
      await found.nth(action.nth ?? 0).fill(action.value ?? action.text);
      return;
    case "select":
      await found.nth(action.nth ?? 0).selectOption(action.label ? { label: action.label } : action.value);
      return;
    case "download": {
      const [file] = await Promise.all([page.waitForEvent("download"), found.nth(action.nth ?? 0).selectOption(action.value)]);
      await file.saveAs(action.path);
      return file.suggestedFilename();
    }
    case "press":
      await page.keyboard.press(action.key);
      return;
    case "text":
      return await found.allTextContents();
    case "count":
      return await found.count();
    case "attribute":
      return await found.evaluateAll((nodes, name) => nodes.map((node) => node.getAttribute(name)), action.name);
    case "evaluate":
      return await page.evaluate(action.script);
    case "accessible": {
      if (!(await page.evaluate(() => "axe" in window))) await page.addScriptTag({ path: AXE });
      return await page.evaluate(async (where) => {
        const { violations } = await window.axe.run(where, { runOnly: ["wcag2a", "wcag2aa"], resultTypes: ["violations"] });
        return violations.map(({ id, impact, nodes }) => `${id} (${impact}): ${nodes.map((node) => node.html.slice(0, 160)).join("; ")}`);
      }, action.selector);
    }
    case "scroll":
      // At once: a table that is drawn anew twice a second is never still for long.
      await found.first().evaluate((node) => node.scrollIntoView({ block: "center" }));
      return;
    case "size":
      await page.setViewportSize({ width: action.width, height: action.height });
      return;
    case "theme":
      await page.evaluate((name) => window.jupyterapp.commands.execute("apputils:change-theme", { theme: name }), action.dark ? "JupyterLab Dark" : "JupyterLab Light");
      await page.waitForFunction((light) => document.body.dataset.jpThemeLight === light, String(!action.dark));
      return;
    case "run_all":
      await ready();
      // Not awaited: the cells are to be watched while they run.
      await page.evaluate(() => void window.jupyterapp.commands.execute("notebook:run-all-cells"));
      return;
    case "idle":
      await page.waitForFunction(() => {
        const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputArea-prompt")].map((node) => node.textContent);
        return prompts.length > 0 && prompts.every((text) => /\[\d+\]/.test(text));
      });
      return;
    case "save":
      await page.evaluate(async () => {
        await window.jupyterapp.commands.execute("docmanager:save");
        await window.jupyterapp.shell.currentWidget.context.ready;
      });
      return;
    case "canvas":
      return await picture(action.selector);
    case "changes": {
      let seen = await picture(action.selector);
      for (let n = 0; n < (action.times ?? 1); n++) {
        const deadline = Date.now() + timeout;
        for (;;) {
          const now = await picture(action.selector);
          if (now !== seen) {
            seen = now;
            break;
          }
          if (Date.now() > deadline) throw new Error(`the canvas was redrawn ${n} times only`);
          await page.waitForTimeout(20);
        }
      }
      return;
    }
    case "screenshot":
      if (found) await found.first().screenshot({ path: action.path });
      else await page.screenshot({ path: action.path, fullPage: Boolean(action.full) });
      return;
    default:
      throw new Error(`unknown action ${action.do}`);
  }
}

// A notebook is ready when its kernel has answered once.
async function ready() {
  await page.waitForFunction(() => {
    const session = window.jupyterapp?.shell?.currentWidget?.sessionContext;
    return session?.isReady && ["idle", "busy"].includes(session.session?.kernel?.status);
  });
}

async function picture(selector) {
  return await page.evaluate((where) => document.querySelector(where)?.toDataURL() ?? "", selector);
}
