import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

/** The modules that the page needs at first. */
const FIRST = /node_modules\/(preact|@preact)\/|src\/(server\/|ui\/(Confirm|controls|deletion|icons|lazy|Thumb)\.|model\/(arrange|canvas|draft|edits|entries|errors|format|ids|keeping|trouble|history|intake|player|motion|queue|route|sizes|timeline|toast|uploads)\.)/;

export default defineConfig({
  plugins: [preact()],
  // Relative URLs, because the server may run behind a path prefix.
  base: "./",
  build: {
    outDir: "../src/keyreel/server/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // Debian's Chromium and all current browsers support it.
    target: "es2022",
    rolldownOptions: {
      output: {
        // What the page needs at first is one file, not one for each set of views that share it.
        codeSplitting: { groups: [{ name: "page", test: FIRST }] },
      },
    },
  },
  server: {
    proxy: Object.fromEntries(
      ["/api", "/files", "/storage", "/keys"].map((path) => [path, { target: "http://127.0.0.1:8000" }]),
    ),
  },
});
