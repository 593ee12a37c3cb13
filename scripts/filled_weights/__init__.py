"""Parts of scripts/make_filled_weights.py: rule, networks and face model of a tree of random weights."""
