"""The families whose model type exists only as remote code.

The publishers' code is not run: transformers' plain class computes the golden, with the declared mask.
"""

from family import Family, sizes
from layout import Declaration, Json
from published import GEMMA3, LENGTH, QWEN3
from tiny_tokenizers import gemma3, llama32, qwen3
from transformers import Gemma3TextModel, LlamaModel, Qwen3Model

LLAMA_BIDIREC: Json = {
    "architectures": ["LlamaBidirectionalModel"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig",
        "AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel",
    },
    "head_dim": 16,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama_bidirec",
    "pooling": "avg",
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "use_cache": True,
    **sizes(),
}
AS_LLAMA: Json = {"model_type": "llama", "architectures": ["LlamaModel"], "is_causal": False}
AS_QWEN3: Json = {"model_type": "qwen3", "architectures": ["Qwen3Model"], "is_causal": False}

NVIDIA_PROMPTS = {"query": "query: ", "document": "passage: "}
VOYAGE_PROMPTS = {
    "query": "Represent the query for retrieving supporting documents: ",
    "document": "Represent the document for retrieval: ",
}


def bidirlm_map() -> Json:
    heads = ("MaskedLM", "SequenceClassification", "TokenClassification")
    code = {"AutoConfig": "configuration_bidirlm.BidirLMConfig", "AutoModel": "modeling_bidirlm.BidirLMModel"}
    code |= {"AutoModelForPreTraining": "modeling_bidirlm.BidirLMPreTrainedModel"}
    return dict(sorted((code | {f"AutoModelFor{h}": f"modeling_bidirlm.BidirLMFor{h}" for h in heads}).items()))


BIDIRLM: Json = {"architectures": ["BidirLMModel"], "auto_map": bidirlm_map(), "model_type": "bidirlm"}

FAMILIES = (
    Family(
        name="llama-nemotron-embed",
        repositories=("nvidia/llama-nemotron-embed-1b-v2", "nvidia/llama-embed-nemotron-8b"),
        seed=201,
        model=LlamaModel,
        config=LLAMA_BIDIREC,
        native=AS_LLAMA,
        tokenizer=lambda: llama32(length=131072),
        attention="bidirectional",
        declaration=Declaration(pooling="mean", prompts=NVIDIA_PROMPTS, max_seq_length=LENGTH),
    ),
    Family(
        # No sentence-transformers files at all: `pooling` in config.json is the declaration.
        name="llama-bidirec-bare",
        repositories=("nvidia/llama-3.2-nv-embedqa-1b-v2",),
        seed=202,
        model=LlamaModel,
        config=LLAMA_BIDIREC,
        native=AS_LLAMA,
        tokenizer=lambda: llama32(length=LENGTH),
        attention="bidirectional",
        declaration=None,
    ),
    Family(
        name="pplx-embed",
        repositories=("perplexity-ai/pplx-embed-v1-0.6b", "perplexity-ai/pplx-embed-v1-4b"),
        seed=203,
        model=Qwen3Model,
        config=QWEN3
        | {
            "architectures": ["PPLXQwen3Model"],
            "auto_map": {"AutoConfig": "configuration.PPLXQwen3Config", "AutoModel": "modeling.PPLXQwen3Model"},
            "max_position_embeddings": LENGTH,
            "model_type": "bidirectional_pplx_qwen3",
            "use_bidirectional_attention": True,
            "use_cache": False,
        },
        native=AS_QWEN3,
        tokenizer=lambda: qwen3(ends_row=False),
        attention="bidirectional",
        declaration=Declaration(pooling="mean", normalize=False, quantizer=True, similarity=None),
        dtype="float32",
    ),
    Family(
        name="voyage-4-nano",
        repositories=("voyageai/voyage-4-nano",),
        seed=204,
        model=Qwen3Model,
        config=QWEN3
        | {
            "architectures": ["Qwen3ForCausalLM"],
            "auto_map": {"AutoModel": "modeling_qwen3_bidirectional.Qwen3BidirectionalModel"},
            "max_position_embeddings": 40960,
            "num_labels": 48,
            "use_bidirectional_attention": True,
        },
        native=AS_QWEN3,
        prefix="model.",
        head=48,
        tokenizer=lambda: qwen3(ends_row=False),
        attention="bidirectional",
        declaration=Declaration(pooling="mean", prompts=VOYAGE_PROMPTS, max_seq_length=LENGTH),
    ),
    Family(
        name="bidirlm-qwen3",
        repositories=("BidirLM/BidirLM-0.6B-Embedding", "BidirLM/BidirLM-1.7B-Embedding"),
        seed=205,
        model=Qwen3Model,
        config=QWEN3 | BIDIRLM | {"classifier_pooling": "late", "max_position_embeddings": LENGTH},
        native=AS_QWEN3,
        tokenizer=lambda: qwen3(ends_row=False),
        attention="bidirectional",
        declaration=Declaration(pooling="mean", normalize=False),
    ),
    Family(
        # Its window is wider than any row here, since it is not known what the publisher's code does beyond the window.
        name="bidirlm-gemma3",
        repositories=("BidirLM/BidirLM-270M-Embedding", "BidirLM/BidirLM-1B-Embedding"),
        seed=206,
        model=Gemma3TextModel,
        config=GEMMA3
        | BIDIRLM
        | {
            "_sliding_window_pattern": 6,
            "classifier_pooling": "late",
            "layer_types": ["sliding_attention", "full_attention"],
            "max_position_embeddings": LENGTH,
            "sliding_window": 512,
        },
        native={"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"], "use_bidirectional_attention": True},
        tokenizer=lambda: gemma3(length=131072, ends_row=False),
        attention="bidirectional",
        declaration=Declaration(pooling="mean", normalize=False),
    ),
)
