"""The part of SentencePiece's file format that `tokenizer_convert` reads. This module requires only protobuf."""

from functools import cache
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # types of pieces
UNIGRAM, BPE = 1, 2  # types of models

# Message → field → number, type, and default, as in sentencepiece_model.proto.
_MESSAGES: dict[str, dict[str, tuple[int, str, str]]] = {
    "Piece": {"piece": (1, "STRING", ""), "score": (2, "FLOAT", ""), "type": (3, "INT32", "1")},
    "Trainer": {
        "model_type": (3, "INT32", "1"),
        "byte_fallback": (35, "BOOL", "false"),
        "unk_piece": (45, "STRING", "<unk>"),
    },
    "Model": {"pieces": (1, "Piece", ""), "trainer_spec": (2, "Trainer", "")},
}


@cache
def message_class() -> Any:
    """The message class of a model.

    It has its own descriptor pool, since other packages register the whole format under the same name, each for one
    version of protobuf.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="sentencepiece_part.proto", package="l2v", syntax="proto2")
    field = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for key, (number, kind, default) in fields.items():
            label = field.LABEL_REPEATED if key == "pieces" else field.LABEL_OPTIONAL
            added = message.field.add(name=key, number=number, label=label)
            if kind in _MESSAGES:
                added.type, added.type_name = field.TYPE_MESSAGE, f".l2v.{kind}"
            else:
                added.type, added.default_value = field.Type.Value(f"TYPE_{kind}"), default
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("l2v.Model"))
