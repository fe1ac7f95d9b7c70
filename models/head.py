"""Dense layers that a sentence-transformers repository declares after its decoder."""

from collections.abc import Sequence

import torch

from l2v.models.checkpoint import Checkpoint
from l2v.models.declaration import Declaration
from l2v.models.errors import SourceError
from l2v.models.sentence_transformers.files import DenseConfig
from l2v.models.sources import Source


class Dense(torch.nn.Module):
    """A linear layer, its activation and an optional residual. Parameters are named as in the weight files."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = torch.nn.Linear(config.inputs, config.outputs, config.bias)
        self.activation: torch.nn.Module = getattr(torch.nn, config.activation.rpartition(".")[2])()
        if config.residual and config.inputs != config.outputs:
            self.residual: torch.nn.Module = torch.nn.Linear(config.inputs, config.outputs, bias=False)
        elif config.residual:
            self.residual = torch.nn.Identity()
        self.requires_grad_(False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[…, inputs] → […, outputs]"""
        if self.config.normalized:
            states = torch.nn.functional.normalize(states, dim=-1)
        output: torch.Tensor = self.activation(self.linear(states))
        return output + self.residual(states) if self.config.residual else output


class Head(torch.nn.Module):
    """The layers before and after pooling; there may be none."""

    def __init__(self, layers: Sequence[Dense] = ()) -> None:
        super().__init__()
        self.states = torch.nn.Sequential(*(layer for layer in layers if layer.config.per_token))
        self.vectors = torch.nn.Sequential(*(layer for layer in layers if not layer.config.per_token))

    @property
    def layers(self) -> list[Dense]:
        return [layer for layer in (*self.states, *self.vectors) if isinstance(layer, Dense)]

    def width(self, states: int) -> int:
        """The width of a vector, given the width of the decoder's states."""
        return self.layers[-1].config.outputs if self.layers else states

    def state_width(self, states: int) -> int:
        """The width of a token's state when it is pooled, given the width of the decoder's states."""
        return next((layer.config.outputs for layer in reversed(self.layers) if layer.config.per_token), states)

    def move(self, device: torch.device, dtype: torch.dtype) -> "Head":
        """Moves the layers. Layers before pooling compute in the decoder's dtype, layers after pooling in float32."""
        self.states.to(device, dtype)
        self.vectors.to(device, torch.float32)
        return self


def read_head(declaration: Declaration, base: Source, width: int) -> Head:
    """Reads the layers that a declaration names.

    Args:
        declaration: names the layers and the source of their folders.
        base: the source of the decoder's weights, which may include a projection.
        width: the width of the decoder's states.

    Raises:
        SourceError: if weights are missing, damaged, surplus or of the wrong shape, or widths do not match.
    """
    source, layers = declaration.layers_source, declaration.layers
    width = _width_after([layer for layer in layers if layer.per_token], width, source)
    if declaration.width not in (0, width):
        raise SourceError(
            f"the pooling that {source.name} declares expects states of {declaration.width} numbers, but the model's "
            f"states have {width}: the files do not belong together"
        )
    _width_after([layer for layer in layers if not layer.per_token], width, source)
    return Head([_load(config, source, base) for config in layers])


def _width_after(layers: Sequence[DenseConfig], width: int, source: Source) -> int:
    for config in layers:
        if config.inputs != width:
            raise SourceError(
                f"{config.folder} of {source.name} expects {config.inputs} numbers, but gets {width}: the files "
                "do not belong together"
            )
        width = config.outputs
    return width


def _load(config: DenseConfig, declared_by: Source, base: Source) -> Dense:
    layer, folder = Dense(config), config.folder
    if folder.endswith(".weight"):
        weights, where = {"linear.weight": _projection(folder, base)}, f"{folder} of {base.name}"
    else:
        file = _read_folder(folder, declared_by)
        weights, where = {name: file.tensor(name) for name in file.shapes}, f"{folder} of {declared_by.name}"
    expected = layer.state_dict()
    if unmatched := sorted(weights.keys() ^ expected.keys()):
        problem = "lacks" if unmatched[0] in expected else "holds a tensor that its config.json does not declare,"
        raise SourceError(f"{where} {problem} {unmatched[0]}: config.json and weights do not belong together")
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            raise SourceError(
                f"{name} in {where} has shape {list(weight.shape)}, but its config.json declares "
                f"{list(expected[name].shape)}: config.json and weights do not belong together"
            )
        if not weight.isfinite().all():
            raise SourceError(f"{name} in {where} holds NaN or infinity: download it again")
    layer.load_state_dict(weights)
    return layer


def _projection(name: str, base: Source) -> torch.Tensor:
    weights = Checkpoint.of(base)
    if name not in weights.shapes:
        raise SourceError(
            f"{base.name} lacks {name}, the projection that its publisher's code applies to every token's state: "
            "complete the folder"
        )
    return weights.tensor(name)


def _read_folder(folder: str, source: Source) -> Checkpoint:
    names = [f"{folder}/{name}" for name in ("model.safetensors", "pytorch_model.bin")]
    found = next((name for name in names if (source.folder / name).is_file()), None)
    if found is None:
        raise SourceError(f"{source.name} lacks {names[0]}, the weights of a layer: complete the folder")
    return Checkpoint.read(source, [found])
