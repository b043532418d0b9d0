// What JupyterLab loads: a container of module federation with one module, "./extension". The modules that others have
// put into the shared scope are taken from there, so that tokens and React contexts are the very same objects.
import { advancedOptions } from "./plugin.js";

const NEEDED = ["@jupyterlab/scheduler", "@jupyterlab/services", "@mui/material", "react"];
let scope = null;

async function extension() {
  const modules = await Promise.all(NEEDED.map(shared));
  // Without jupyter-scheduler there is no dialog to add to.
  const plugins = modules.every(Boolean) ? [advancedOptions(...modules)] : [];
  return () => ({ __esModule: true, default: plugins });
}

async function shared(name) {
  const versions = Object.values(scope?.[name] ?? {});
  const picked = versions.find((version) => version.loaded) ?? versions[0];
  return picked ? (await picked.get())() : null;
}

window._JUPYTERLAB ??= {};
window._JUPYTERLAB["paibook-lab"] = {
  init(given) {
    scope = given;
  },
  get(name) {
    return name === "./extension" ? extension() : Promise.reject(new Error(`paibook-lab has no module ${name}`));
  },
};
