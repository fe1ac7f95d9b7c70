"""LoRA modules on top of one base stack, unmerged: each row of a batch chooses its own by id.

A module's weights stay apart from the base's. Every linear layer computes the base's product for all tokens, and adds
the low-rank products of each module for the rows that name it.
"""
