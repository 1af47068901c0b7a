"""The routes, one module per group. Each has a `router` that `keyreel.server.app` includes."""
