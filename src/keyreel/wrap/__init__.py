"""Runs programs written for fal.ai, unchanged, against a Keyreel server.

Every connection to one of fal's hosts ends at a stand-in on this machine, which answers with certificates made for this
one run and hands the calls to the server. Hooks in Python and Node lead connections there, a local proxy those of all
other programs that honour HTTPS_PROXY. Connections to any other host pass through unchanged.

May import: errors, fal, net.
"""
