"""fal's model API over HTTP: thin routes over the store, webhooks, and the process that runs them.

`routes` has one module per group of routes. Nothing in this package imports torch.

May import: checkpoints, errors, fal, files, inputs, metrics, net, settings, store, traces, version, video, worker.
"""
