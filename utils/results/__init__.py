"""Names and formats of all intermediate files, and the content key of a result.
Not here: how results are computed.
May import: core to people.
"""
