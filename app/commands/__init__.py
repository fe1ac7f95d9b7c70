"""The subcommands of `l2v`, one per file. The fields of a command's class are its flags, and its docstring is its help.

Commands import heavy packages (torch, transformers, pyarrow, the web framework) when they run, to keep `--help` fast.
"""
