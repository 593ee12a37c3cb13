"""The three stages as functions of typed options, and the pipeline that chains them.
Not here: command lines: entry scripts turn words into options.
May import: utils, layers to training.
"""
