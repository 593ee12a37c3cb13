"""Errors, record types, options, command lines, threads and memory, for every other room.
Not here: anything that knows media, faces, networks or the formats of files.
May import: nothing of this project.
"""
