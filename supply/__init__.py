"""What Keyreel is made from: advisories and licences of its packages, and the locks with their hashes."""
