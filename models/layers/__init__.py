"""Building blocks of networks and faster equivalents of library layers.
Not here: whole networks of a stage.
May import: utils.
"""
