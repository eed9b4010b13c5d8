// Bundles each library once into an ES module beside this file, with its licence. `make vendor` calls it
// in a folder where `npm install` has put what package.json names: node vendor.mjs NODE_MODULES.
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";

const here = import.meta.dirname;
const modules = path.resolve(process.argv[2]);
const { build } = createRequire(path.join(modules, "x"))("esbuild");

await rm(path.join(here, "licences"), { recursive: true, force: true });
await mkdir(path.join(here, "licences"));
const result = await build({
  entryPoints: (await readdir(path.join(here, "entries"))).map((name) => path.join(here, "entries", name)),
  outdir: here,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  nodePaths: [modules],
  define: { "process.env.NODE_ENV": '"production"' },
  metafile: true,
});

const fonts = { "@fontsource-variable/geist": "geist", "@fontsource-variable/geist-mono": "geist-mono" };
const used = new Set(Object.keys(fonts));
for (const input of Object.keys(result.metafile.inputs)) {
  const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (found) used.add(found[1]);
}
for (const name of used) {
  const folder = path.join(modules, name);
  const licence = (await readdir(folder)).find((file) => /^licen[cs]e/i.test(file));
  const { version, license } = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
  const text = licence ? await readFile(path.join(folder, licence), "utf8") : `Licence: ${license}\n`;
  const file = `${name.replace("@", "").replace("/", "-")}.txt`;
  await writeFile(path.join(here, "licences", file), `${name} ${version}\n\n${text.trim()}\n`);
}
await mkdir(path.join(here, "fonts"), { recursive: true });
for (const [name, short] of Object.entries(fonts)) {
  const file = `${short}-latin-wght-normal.woff2`;
  await copyFile(path.join(modules, name, "files", file), path.join(here, "fonts", file));
}
const css = await readFile(path.join(modules, "uplot/dist/uPlot.min.css"), "utf8");
await writeFile(path.join(here, "uplot.css"), css);
