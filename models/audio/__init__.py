"""Sound becomes features: HuBERT, Whisper, cepstra, pitch, speech activity.
Not here: what the features are used for.
May import: utils, layers.
"""
