"""LLM2Vec's recipe, which turns a decoder into an encoder (paper, section 2).

command.py         `l2v train`
recipes.py         the settings of a run, one class per stage
config_file.py     YAML files of settings
configs/           the paper's settings for published models
data_sources.py    files, folders and Hub datasets → examples
data.py            examples → datasets, every example checked
preflight.py       checks before anything is loaded
memory.py          estimate of the memory that a run needs
processes.py       the processes of a distributed run
student.py         base, merged adapters and the new LoRA adapter
trainer.py         checkpoints, resuming, the finished adapter
arguments.py       the arguments of transformers' Trainer
folder.py          the output folder of a run
card.py            the model card
mntp.py            masked next token prediction
masking.py         which tokens MNTP masks
contrastive.py     SimCSE and supervised contrastive learning
packed_encoder.py  the student as a sentence-transformers module
collator.py        examples → features
losses.py          InfoNCE, distillation, graded pairs
sampler.py         the batches of a run
evaluation.py      scores on MTEB tasks
errors.py          errors of training and evaluation
"""
