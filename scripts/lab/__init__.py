"""Parts of scripts/compare-peers: namespaces, switches, measurements, the report."""
