"""Atomic writing, locks, work folders, arrays and images on disk, digests.
Not here: the names of this project's own files (results), and videos or sound (media).
May import: core.
"""
