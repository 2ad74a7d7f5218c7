"""One node, composed of its parts."""
