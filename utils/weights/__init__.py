"""Which weights serve a run, where they come from, and the only code that opens them.
Not here: networks: this room hands out tensors and arrays.
May import: core, files.
"""
