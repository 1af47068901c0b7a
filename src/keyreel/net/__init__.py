"""Network safety: the policy for outgoing connections, and certificates for TLS and for signing media.

May import: version.
"""
