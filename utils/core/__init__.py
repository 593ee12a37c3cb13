"""Errors, record types, options, command lines, threads and memory: what every other room needs.
Not here: anything that knows media, faces, networks or the formats of files.
May import: nothing of this project.
"""
