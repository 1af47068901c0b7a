"""Model files: the catalogue, file layouts, the hub, LoRA keys and memory arithmetic. Needs no torch.

May import: errors, media, video.
"""
