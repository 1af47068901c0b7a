"""Runs programs written for fal.ai, unchanged, against a Keyreel server.

Python programs, and all others that honour HTTPS_PROXY, reach fal's hosts through a local proxy, which answers for them
with a certificate made for this one run. Node's fetch honours no proxy, so a module loaded before the program redirects
its calls to the server. Connections to any other host pass through unchanged.

May import: errors, fal, net.
"""
