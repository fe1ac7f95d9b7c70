"""The subcommands of `l2v`, one a file: a class whose fields are the flags and whose docstring is the help.

What is heavy (torch, transformers, pyarrow, the web framework) is imported where a command runs, not here.
"""
