"""Reads and writes the files with which a sentence-transformers repository declares how its model is used.

sentence-transformers builds a model from the modules in modules.json: a Transformer, a Pooling, and any number of Dense
and Normalize. Two more files hold the settings of the Transformer and of the model. If these files declare
something that l2v does not serve, reading them raises an error that names it.
"""
