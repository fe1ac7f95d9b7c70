"""Trains the built-in model with LLM2Vec's recipe.

__main__.py   the commands: `python -m examples.demo_model --help`
stages.py     from the data to the finished stack, stage by stage
base.py       tokenizer and pretraining of the decoder
teacher.py    the sentence encoder that the model learns from
corpus.py     the training data
text.py       public text: WordNet, Wikipedia, manual pages, docstrings
sentences.py  composed sentences in plain English
scores.py     evaluation tasks, and the methods to compare
report.py     tables and plots of docs/demo-model.md
record.py     reference vector and checksums of the finished stack
machine.py    the dtype to compute in
"""
