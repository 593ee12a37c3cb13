"""Choice and sources of the weights, and the only code that opens them.
Not here: networks: this room hands out tensors and arrays.
May import: core, files.
"""
