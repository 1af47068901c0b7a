import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

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
  },
  server: {
    proxy: Object.fromEntries(
      ["/api", "/files", "/storage", "/keys"].map((path) => [path, { target: "http://127.0.0.1:8000" }]),
    ),
  },
});
