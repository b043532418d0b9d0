// Bundles the widget into ../static: one ES module and one style sheet, nothing fetched at run time.
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const licence = readFileSync("node_modules/uplot/LICENSE", "utf8").trim();
const shared = { bundle: true, minify: true, legalComments: "inline", charset: "utf8", logLevel: "info" };
const banner = `/*! Built from paibook/widgets/js by "make widgets"; edit there. Contains uPlot:\n\n${licence}\n*/`;

await build({
  ...shared,
  entryPoints: ["src/curves.js"],
  outfile: "../static/curves.js",
  format: "esm",
  target: "es2020",
  banner: { js: banner },
});
await build({
  ...shared,
  entryPoints: ["src/curves.css"],
  outfile: "../static/curves.css",
  banner: { css: banner },
});

// Widgets without a library of others.
const own = { js: '/*! Built from paibook/widgets/js by "make widgets"; edit there. */' };
for (const name of ["hyperparameters", "study", "explainer"]) {
  await build({ ...shared, entryPoints: [`src/${name}.js`], outfile: `../static/${name}.js`, format: "esm", target: "es2020", banner: own });
  await build({ ...shared, entryPoints: [`src/${name}.css`], outfile: `../static/${name}.css`, banner: { css: own.js } });
}
// The panels.
for (const name of ["gpus", "cluster", "runs", "jobs"]) {
  await build({ ...shared, entryPoints: [`src/${name}.js`], outfile: `../static/${name}.js`, format: "esm", target: "es2022", banner: own });
}
await build({ ...shared, entryPoints: ["src/panels.css"], outfile: "../static/panels.css", banner: { css: own.js } });
