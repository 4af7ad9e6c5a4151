"""Next-best-action: recommendations that react to a click."""
