"""Safety features around a video: prompt expansion, content checks, metadata and AI provenance marks.

May import: checkpoints, errors, fal, media, net, settings, version, video.
"""
