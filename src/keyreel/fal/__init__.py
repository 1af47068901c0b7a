"""What fal defines: the endpoints with their inputs and outputs, the form of failures, the host names.

May import: errors, video.
"""
