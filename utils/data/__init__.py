"""Training data: clips, splits, shards, datasets, augmentation.
Not here: losses and optimisers (training), and how raw videos become clips (curation).
May import: core to results.
"""
