"""Parts of scripts/make_filled_weights.py: the rule, the networks and the face model of a tree of random weights."""
