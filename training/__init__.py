"""The recipe of LLM2Vec: from a decoder to an encoder (paper, section 2).

recipes.py      what a training run can be told: one class a stage
sources.py      files, folders and Hub datasets → rows, with where each stands
data.py         rows → datasets, each bad one named
student.py      base + merged adapters + a new LoRA adapter, attending both ways
masking.py      which tokens MNTP hides, and where each is predicted from
mntp.py         masked next token prediction
contrastive.py  SimCSE and supervised contrastive learning
endless.py      its batches, on any number of devices
running.py      the trainer: checkpoints, resume, what a run leaves behind
folder.py       the folder of a run: whose it is, and what in it is whole
checkpoint.py   what stands in a base's files
memory.py       whether it will fit
card.py         the record of a run
evaluation.py   scores on mteb's tasks
demo/           how the built-in model is made
"""
