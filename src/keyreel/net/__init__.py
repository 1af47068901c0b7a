"""Network safety: the policy for outgoing connections, who a client is, and certificates for TLS and for signing media.

May import: errors, version.
"""
