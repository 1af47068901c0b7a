"""The model. The only package that imports torch; it knows nothing of HTTP, files or rows."""
