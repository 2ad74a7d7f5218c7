"""One job on the wire: its terms, its two machines and its seed."""
