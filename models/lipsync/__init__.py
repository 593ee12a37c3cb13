"""Synchrony of lips and sound: agreement, sync expert, SyncNet.
Not here: reports about it (evaluation).
May import: utils, layers to motion.
"""
