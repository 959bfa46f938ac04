"""Who connects, who calls, and what they may do and use: TLS, keys and certificates, the access file."""
