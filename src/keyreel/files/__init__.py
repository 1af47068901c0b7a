"""Files: objects in a folder or an S3 bucket, and the signed links to them.

May import: errors, fal, store.
"""
