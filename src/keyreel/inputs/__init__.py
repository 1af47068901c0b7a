"""The inputs of a request: fetches pictures, clips and LoRAs to files and decodes them to a job.

May import: checkpoints, errors, fal, media, net, settings, video.
"""
