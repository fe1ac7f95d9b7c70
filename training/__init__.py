"""LLM2Vec's training, which turns a decoder into an encoder (paper, section 2).

command.py         `l2v train`
recipes.py         the settings of a run, one class per stage
config_file.py     YAML files of settings
columns.py         the setting that maps fields to columns of the data
configs/           the paper's settings for published models
data_sources.py    files, folders and Hub datasets → examples
data.py            examples → datasets, every example checked
preflight.py       checks before anything is loaded
memory.py          estimate of the memory that a run needs
processes.py       the processes of a distributed run
student.py         the model being trained: base, merged adapters and the new LoRA adapter
trainer.py         checkpoints, resuming, the finished adapter
arguments.py       the arguments of transformers' Trainer
folder.py          the output folder of a run
card.py            the model card
mntp.py            masked next token prediction
masking.py         which tokens MNTP masks
contrastive.py     SimCSE and supervised contrastive learning
packed_encoder.py  the model being trained, as a sentence-transformers module
collator.py        examples → features
losses.py          InfoNCE, distillation, graded pairs
sampler.py         the batches of a run
evaluation.py      scores on MTEB tasks
file_evaluation.py scores on files of pairs or triplets
errors.py          errors of training and evaluation
"""
