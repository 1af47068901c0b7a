"""The model. The only package that imports torch. It knows nothing of HTTP, the database or the network.

May import: checkpoints, errors, media, safety, video.
"""
