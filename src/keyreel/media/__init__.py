"""Decodes pictures and clips to pixels, and encodes pixels to MP4. Knows nothing about models.

May import: errors, settings, video.
"""
