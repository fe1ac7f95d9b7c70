"""Families of types that transformers knows: causal decoders, and decoders that it runs bidirectionally.

Only sizes, lengths and the vocabulary differ from the published files. `bidirectional.py` has the types that exist
only as remote code.
"""

from family import Family, sizes
from layout import Declaration, Dense, Json
from tiny_tokenizers import gemma3, ministral, mistral, qwen3
from transformers import Gemma3TextModel, Ministral3Model, MistralModel, Qwen3Model

LENGTH = 96

QWEN3: Json = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 16,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_window_layers": 2,
    "model_type": "qwen3",
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_cache": True,
    "use_sliding_window": False,
    **sizes(),
}

GEMMA3: Json = {
    "architectures": ["Gemma3TextModel"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "model_type": "gemma3_text",
    "query_pre_attn_scalar": 16,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "use_cache": True,
    **sizes(num_key_value_heads=1),
}

WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"

E5_PROMPTS = {
    "web_search_query": WEB_SEARCH + " ",
    "sts_query": "Instruct: Retrieve semantically similar text.\nQuery: ",
    "summarization_query": "Instruct: Given a news summary, retrieve other semantically similar summaries\nQuery: ",
    "bitext_query": "Instruct: Retrieve parallel sentences.\nQuery: ",
}
HARRIER_PROMPTS = {
    "web_search_query": WEB_SEARCH + " ",
    "sts_query": "Instruct: Retrieve semantically similar text\nQuery: ",
    "bitext_query": "Instruct: Retrieve parallel sentences\nQuery: ",
}
GEMMA_TASKS = {
    "BitextMining": "search result",
    "Clustering": "clustering",
    "Classification": "classification",
    "InstructionRetrieval": "code retrieval",
    "MultilabelClassification": "classification",
    "PairClassification": "sentence similarity",
    "Reranking": "search result",
    "Retrieval": "search result",
    "Retrieval-query": "search result",
    "STS": "sentence similarity",
    "Summarization": "summarization",
}
GEMMA_PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    **{name: f"task: {task} | query: " for name, task in GEMMA_TASKS.items()},
    "Retrieval-document": "title: none | text: ",
}

# Ministral 3 scales its queries by position, beyond 16,384 tokens in the real one and beyond 32 here.
MINISTRAL_ROPE: Json = {
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "factor": 16.0,
    "llama_4_scaling_beta": 0.1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 1000000.0,
    "rope_type": "yarn",
    "type": "yarn",
}

FAMILIES = (
    Family(
        name="qwen3-embedding",
        repositories=("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Embedding-4B", "Qwen/Qwen3-Embedding-8B"),
        seed=101,
        model=Qwen3Model,
        config=QWEN3 | {"architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": LENGTH},
        tokenizer=lambda: qwen3(ends_row=True),
        attention="causal",
        declaration=Declaration(pooling="lasttoken", prompts={"query": WEB_SEARCH, "document": ""}),
    ),
    Family(
        name="e5-mistral",
        repositories=("intfloat/e5-mistral-7b-instruct",),
        seed=102,
        model=MistralModel,
        config={
            "architectures": ["MistralModel"],
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
            "use_cache": False,
            **sizes(),
        },
        tokenizer=lambda: mistral(add_eos=True),
        eos_in_config_only=True,
        attention="causal",
        declaration=Declaration(pooling="lasttoken", prompts=E5_PROMPTS, similarity=None, max_seq_length=LENGTH),
    ),
    Family(
        name="embeddinggemma",
        repositories=("google/embeddinggemma-300m",),
        seed=103,
        model=Gemma3TextModel,
        config=GEMMA3
        | {
            "_sliding_window_pattern": 6,
            "layer_types": ["sliding_attention", "full_attention"],
            "max_position_embeddings": LENGTH,
            "sliding_window": 16,  # 512 in the real one; half of it to each side
            "use_bidirectional_attention": True,
        },
        tokenizer=lambda: gemma3(length=LENGTH, ends_row=True),
        attention="bidirectional",
        declaration=Declaration(
            pooling="mean", dense=(Dense(32, 64), Dense(64, 32)), prompts=GEMMA_PROMPTS, max_seq_length=LENGTH
        ),
    ),
    Family(
        name="nemotron-3-embed",
        repositories=("nvidia/Nemotron-3-Embed-1B-BF16", "nvidia/Nemotron-3-Embed-8B-BF16"),
        seed=104,
        model=Ministral3Model,
        config={
            "architectures": ["Ministral3Model"],
            "attention_dropout": 0.0,
            "head_dim": 16,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "is_causal": False,
            "max_position_embeddings": 512,
            "model_type": "ministral3",
            "pooling": "avg",
            "rms_norm_eps": 1e-05,
            "rope_parameters": MINISTRAL_ROPE,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "use_cache": False,
            **sizes(),
        },
        tokenizer=lambda: ministral(length=LENGTH),
        attention="bidirectional",
        declaration=Declaration(pooling="mean", prompts={"query": "query: ", "document": "passage: "}),
    ),
    Family(
        name="harrier-270m",
        repositories=("microsoft/harrier-oss-v1-270m", "microsoft/harrier-oss-v1-27b"),
        seed=105,
        model=Gemma3TextModel,
        config=GEMMA3
        | {
            "layer_types": ["full_attention", "full_attention"],
            "max_position_embeddings": LENGTH,
            "sliding_window": 512,
            "use_bidirectional_attention": False,
        },
        tokenizer=lambda: gemma3(length=131072, ends_row=True),
        attention="causal",
        declaration=Declaration(pooling="lasttoken", prompts=HARRIER_PROMPTS),
    ),
    Family(
        name="harrier-0.6b",
        repositories=("microsoft/harrier-oss-v1-0.6b",),
        seed=106,
        model=Qwen3Model,
        config=QWEN3 | {"architectures": ["Qwen3Model"], "max_position_embeddings": LENGTH},
        tokenizer=lambda: qwen3(ends_row=True),
        attention="causal",
        declaration=Declaration(pooling="lasttoken", prompts=HARRIER_PROMPTS),
    ),
)
