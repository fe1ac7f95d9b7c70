"""Reads what the files of a sentence-transformers repository declare.

sentence-transformers builds a model from the modules in modules.json: a Transformer, a Pooling, and any number of Dense
and Normalize. Two more files hold the settings of the Transformer and of the model. If these files declare
something that l2v does not serve, the error names it.
"""
