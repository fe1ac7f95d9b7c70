"""Reads sentence_bert_config.json and config_sentence_transformers.json: settings of the Transformer and the model."""

from l2v.models.errors import SourceError
from l2v.models.sentence_transformers.files import MODEL_SETTINGS, SETTINGS, File, Layout
from l2v.models.sources import Source
from l2v.models.types import text_fault

_OF_MODEL = ("model_args", "model_kwargs")
_OF_CONFIG = ("config_args", "config_kwargs")
_OF_TOKENIZER = ("tokenizer_args", "processor_kwargs")
# Arguments that do not change the vectors. trust_remote_code has no effect here: remote code is never run.
_HARMLESS = {
    *("trust_remote_code", "torch_dtype", "dtype", "attn_implementation", "low_cpu_mem_usage", "device_map"),
    *("padding_side", "use_fast", "use_cache"),
}
_UNSERVED = ("document_length", "processing_kwargs", "query_expansion", "query_length", "tokenizer_name_or_path")
# Settings of which only this value, the default, is served.
_FIXED = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
_METRICS = {"cosine": "cosine", "dot": "dot", "dot_product": "dot"}
# transformers writes 1e30 for tokenizers without a limit.
_UNLIMITED = 10**9


def read_settings(source: Source, layout: Layout) -> None:
    """Reads the settings of the Transformer.

    Raises:
        SourceError: if the file is damaged or has an invalid value.
        UnsupportedModelError: if the file declares something that l2v does not serve.
    """
    known = {"max_seq_length", "do_lower_case", "modality_config", "unpad_inputs"}
    file = File.read(source, SETTINGS, {*known, *_FIXED, *_UNSERVED, *_OF_MODEL, *_OF_CONFIG, *_OF_TOKENIZER})
    if unserved := next((key for key in _UNSERVED if file.content.get(key)), None):
        file.refuse(f"sets {unserved}")
    for key, served in _FIXED.items():
        if (value := file.get(key, str, served)) != served:
            file.refuse(f"has {key} = {value}")
    _check_modalities(file)
    length = file.count("max_seq_length")
    for key in (*_OF_MODEL, *_OF_CONFIG, *_OF_TOKENIZER):
        for name, value in file.get(key, dict, {}).items():
            if key in _OF_CONFIG and name in ("is_causal", "use_bidirectional_attention"):
                layout.config[name] = value
            elif key in _OF_TOKENIZER and name == "model_max_length" and type(value) is int and value > 0:
                length = value  # takes precedence over max_seq_length
            elif name not in _HARMLESS:
                file.refuse(f"sets {name} = {value} in {key}")
    if length:
        layout.values["max_length"] = (length, SETTINGS)
    layout.values["lower_case"] = (file.get("do_lower_case", bool, False), SETTINGS)


def _check_modalities(file: File) -> None:
    modalities = file.get("modality_config", dict, {"text": {}})
    if "message" in modalities:
        file.refuse("has the modality `message`, for which every text is rendered through the chat template")
    if modalities.keys() != {"text"}:
        file.refuse(f"has the modalities {', '.join(modalities) or 'none'}")
    text = modalities["text"]
    for key, served in (("method", "forward"), ("method_output_name", "last_hidden_state")):
        if (value := text.get(key, served)) != served:
            file.refuse(f"has {key} = {value} for texts")


def read_model_settings(source: Source, layout: Layout) -> None:
    """Reads the settings of the model as a whole.

    Raises:
        SourceError: if the file is damaged or has an invalid value.
        UnsupportedModelError: if the file declares something that l2v does not serve.
    """
    known = {"__version__", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "model_type"}
    file = File.read(source, MODEL_SETTINGS, known | {"requirements"})
    if (kind := file.get("model_type", str, "SentenceTransformer")) != "SentenceTransformer":
        file.refuse(f"has the model_type {kind} (only SentenceTransformer returns one vector for a text)")
    prompts = {name: "" if prompt is None else prompt for name, prompt in file.get("prompts", dict, {}).items()}
    for name, prompt in prompts.items():
        if fault := text_fault(prompt):
            raise SourceError(f"{MODEL_SETTINGS} of {source.name}: the prompt {name} {fault}")
    default = file.get("default_prompt_name", str, None)
    if default is not None and default not in prompts:
        file.refuse(f"has the default_prompt_name {default} without a prompt of that name")
    metric = file.get("similarity_fn_name", str, "cosine")
    if metric not in _METRICS:
        file.refuse(f"has the similarity_fn_name {metric} (not one of cosine, dot)")
    if file.content:
        layout.values["prompts"] = (prompts, MODEL_SETTINGS)
        layout.values["default_prompt_name"] = (default, MODEL_SETTINGS)
        layout.values["similarity"] = (_METRICS[metric], MODEL_SETTINGS)
    if dimensions := file.count("truncate_dim"):
        layout.values["truncate_dim"] = (dimensions, MODEL_SETTINGS)


def tokenizer_length(source: Source, positions: object) -> tuple[int, str] | None:
    """The lower of the lengths in tokenizer_config.json and config.json, and its file; None if neither sets a length.

    Args:
        source: the source of the tokenizer.
        positions: the model's `max_position_embeddings`; None if its config has none.
    """
    length = source.read("tokenizer_config.json").get("model_max_length")
    limits = ((length, "tokenizer_config.json"), (positions, "config.json"))
    numbers = [(int(limit), file) for limit, file in limits if isinstance(limit, int | float)]
    return min((each for each in numbers if 0 < each[0] < _UNLIMITED), default=None)
