"""Programs that know only fal.ai, run against a Keyreel server without a change.

Python programs (and all that honour HTTPS_PROXY) reach fal's hosts through a proxy on this machine, which answers for
them with a certificate made for this one run. Node's fetch honours no proxy: a module loaded before the program sends
its calls to the server. Connections to any other host pass through untouched.
"""
