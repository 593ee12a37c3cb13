"""The only code that knows the names and formats of intermediate files, and the key of a result.
Not here: how results are computed.
May import: core to people.
"""
