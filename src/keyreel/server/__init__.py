"""fal's model API over HTTP: thin routes over the store. Nothing here imports torch."""
