// Bundles the extension into labextensions/, from where the wheel ships it. Nothing is fetched at run time: React, MUI and
// jupyter-scheduler are those that JupyterLab has loaded already.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const { name, version, description, license } = JSON.parse(readFileSync("package.json", "utf8"));
const folder = `labextensions/${name}`;
const banner = { js: '/*! Built from extensions/lab by "make widgets"; edit there. */' };
const options = { entryPoints: ["src/container.js"], bundle: true, minify: true, charset: "utf8", format: "iife", target: "es2020" };
const made = await build({ ...options, banner, write: false });
const [{ contents }] = made.outputFiles;
const hash = createHash("sha256").update(contents).digest("hex").slice(0, 16);
const load = `static/remoteEntry.${hash}.js`;

rmSync(folder, { recursive: true, force: true });
mkdirSync(`${folder}/static`, { recursive: true });
writeFileSync(`${folder}/${load}`, contents);
const jupyterlab = {
  extension: true,
  // jupyter-scheduler's own form, whose place this one takes.
  disabledExtensions: ["@jupyterlab/scheduler:IAdvancedOptions"],
  _build: { load, extension: "./extension" },
};
writeFileSync(`${folder}/package.json`, `${JSON.stringify({ name, version, description, license, jupyterlab }, null, 2)}\n`);
console.log(`${folder}/${load} ${(contents.length / 1024).toFixed(1)} kB`);
