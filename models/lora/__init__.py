"""LoRA modules: adapters that one loaded model applies without merging them.

The loaded model is called the stack: a base and the adapters that are merged into it. A row is the token sequence of
one input. Each row of a batch may choose a module by id. Every linear layer computes the stack's product for all
tokens, and adds each module's low-rank products for the rows that chose the module.
"""
