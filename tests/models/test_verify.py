"""The checks of a loaded model find every planted fault, in any layer and dtype, and refuse no sound model."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AutoConfig, AutoModel, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from l2v.models import ModelError, UnsupportedModelError, attention, encoder, probe
from l2v.models.linear import replace_linears
from l2v.models.verify import verify, verify_quantization
from tests import tiny

LAYERS = 3
DTYPES = [torch.float32, torch.bfloat16]
Attend = Callable[..., tuple[torch.Tensor, None]]


def decoder(
    dtype: torch.dtype = torch.float32,
    model_type: str = "llama",
    *,
    width: int = 64,
    layers: int = LAYERS,
    std: float = 0.02,
    adapters: float = 0.0,
    seed: int = 0,
    **changes: object,
) -> PreTrainedModel:
    """A random decoder. `std` is that of its weights, `adapters` that of two rank-16 adapters merged into it."""
    torch.manual_seed(seed)
    heads = max(1, width // 32)
    shape = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "head_dim": width // heads,
        "num_hidden_layers": layers,
    }
    shape |= {"num_attention_heads": heads, "num_key_value_heads": heads, "initializer_range": 0.02}
    config = AutoConfig.for_model(model_type, **(tiny.SHAPE | shape | changes))
    config._attn_implementation = attention.NAME
    model: PreTrainedModel = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(std / 0.02)
        for linear in (module for module in model.modules() if isinstance(module, torch.nn.Linear) and adapters):
            for _ in range(2):
                down, up = torch.randn(16, linear.in_features), torch.randn(linear.out_features, 16)
                linear.weight += 2 * adapters**2 * up @ down
    return model.to(dtype)


@contextmanager
def planted(fault: Callable[[Attend], Attend], layer: int) -> Iterator[None]:
    """Replaces the attention function in one layer."""
    sound = ALL_ATTENTION_FUNCTIONS[attention.NAME]
    faulty = fault(sound)

    def attend(module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        return (faulty if module.layer_idx == layer else sound)(module, *args, **kwargs)

    AttentionInterface.register(attention.NAME, attend)
    try:
        yield
    finally:
        AttentionInterface.register(attention.NAME, sound)


def changing(**changes: Callable[[Any], Any]) -> Callable[[Attend], Attend]:
    """A fault that changes keyword arguments of attention."""

    def fault(attend: Attend) -> Attend:
        def faulty(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
            return attend(*args, **(kwargs | {name: change(kwargs[name]) for name, change in changes.items()}))

        return faulty

    return fault


def moved_bounds(by: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def move(cu_seqlens: torch.Tensor) -> torch.Tensor:
        moved = cu_seqlens.clone()
        moved[1:-1] += by
        return moved

    return move


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("neighbour", ["before", "after"])
def test_a_leak_of_one_neighbouring_token_into_one_token_is_found(
    neighbour: str, layer: int, dtype: torch.dtype, *, causal: bool
) -> None:
    """The leak has a weight of 0.001, far less than rounding in bfloat16."""
    model = decoder(dtype)
    block = model.layers[layer]
    sound = block.forward

    def leaky(states: torch.Tensor, *args: Any, cu_seqlens: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        output: torch.Tensor = sound(states, *args, cu_seqlens=cu_seqlens, **kwargs).clone()
        for bound in cu_seqlens[1:-1].tolist():
            receiver, giver = (bound, bound - 1) if neighbour == "before" else (bound - 1, bound)
            output[:, receiver] += 1e-3 * states[:, giver]
        return output

    assert "without leaks" in verify(model, causal=causal)
    block.forward = leaky
    with pytest.raises(UnsupportedModelError, match="mixes the sequences of a batch"):
        verify(model, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("by", [-1, 1])
def test_sequence_bounds_that_are_off_by_one_in_one_layer_are_found(
    by: int, layer: int, dtype: torch.dtype, *, causal: bool
) -> None:
    reasons = "mixes the sequences|all tokens of a text"
    with planted(changing(cu_seqlens_cpu=moved_bounds(by)), layer), pytest.raises(UnsupportedModelError, match=reasons):
        verify(decoder(dtype), causal=causal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_layer_with_the_wrong_causality_is_found(layer: int, dtype: torch.dtype) -> None:
    with planted(changing(causal=lambda causal: not causal), layer):
        with pytest.raises(UnsupportedModelError, match=r"runs causally.* set attention to causal"):
            verify(decoder(dtype))
        with pytest.raises(UnsupportedModelError, match=r"does not run causally.* set attention to bidirectional"):
            verify(decoder(dtype), causal=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_token_that_depends_on_later_ones_without_attention_is_found(dtype: torch.dtype) -> None:
    model = decoder(dtype)
    model.layers[1].mlp.register_forward_hook(lambda module, args, output: output + 1e-3 * args[0].roll(-1, 1))
    with pytest.raises(UnsupportedModelError, match="does not run causally"):
        verify(model, causal=True)


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
def test_positions_that_do_not_restart_are_found(
    model_type: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, *, causal: bool
) -> None:
    """Even in Llama, where the wrong positions change vectors only in long rows."""

    def running_on(model: torch.nn.Module, batch: Any, **options: bool) -> torch.Tensor:
        batch.position_ids.copy_(torch.arange(batch.position_ids.numel()))
        return encoder.hidden_states(model, batch, **options)

    monkeypatch.setattr(probe, "hidden_states", running_on)
    with pytest.raises(UnsupportedModelError, match="other states for a packed text"):
        verify(decoder(dtype, model_type), causal=causal)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("adapters", [0.0, 0.12])
def test_a_layer_that_depends_on_the_length_of_the_row_is_found(
    layer: int, dtype: torch.dtype, adapters: float
) -> None:
    """Also in a noisy model."""

    def fault(attend: Attend) -> Attend:
        def faulty(
            module: torch.nn.Module, query: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, None]:
            output, _ = attend(module, query, *args, **kwargs)
            return output * math.log(query.shape[2]), None

        return faulty

    model = decoder(dtype, width=128, adapters=adapters)
    with planted(fault, layer), pytest.raises(UnsupportedModelError, match="other states for a packed text"):
        verify(model)


def test_attention_to_only_part_of_the_text_is_found() -> None:
    halves = changing(cu_seqlens_cpu=lambda bounds: torch.arange(0, int(bounds[-1]) + 1, 4, dtype=torch.int32))
    with planted(halves, 1), pytest.raises(UnsupportedModelError, match="does not attend to all tokens of a text"):
        verify(decoder())


@pytest.mark.parametrize("causal", [False, True])
def test_sliding_windows_are_checked_in_each_kind_of_layer(*, causal: bool) -> None:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    model = decoder(torch.bfloat16, "gemma3_text", layer_types=kinds, sliding_window=5)
    assert "without leaks" in verify(model, causal=causal, windowed=True)
    for layer in range(LAYERS):
        with (
            planted(changing(causal=lambda causal: not causal), layer),
            pytest.raises(UnsupportedModelError, match="run"),
        ):
            verify(model, causal=causal, windowed=True)


@pytest.mark.parametrize(
    ("model_type", "changes", "dtype", "reason"),
    [
        ("xglm", {}, torch.bfloat16, "does not use packed attention"),
        ("jamba", {}, torch.float32, "runs causally|does not use packed attention"),  # depends on the CPU
        ("jamba", {"attn_layer_offset": 1, "attn_layer_period": 2}, torch.float32, "mixes the sequences"),
        ("minimax", {}, torch.bfloat16, "mixes the sequences"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_architecture_with_its_own_attention_or_state_is_refused(
    model_type: str, changes: dict[str, object], dtype: torch.dtype, reason: str
) -> None:
    """XGLM has its own attention. Some layers of Jamba and MiniMax read all earlier tokens of the row."""
    with pytest.raises(UnsupportedModelError, match=reason):
        verify(decoder(dtype, model_type, layers=2, std=0.2, **changes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize(("model_type", "weight"), [("mixtral", 1e-3), ("granitemoe", 0.5)])
def test_a_leak_in_a_mixture_of_experts_is_distinguished_from_rounding(
    model_type: str, weight: float, layer: int, dtype: torch.dtype
) -> None:
    """The rounding of an expert depends on the other tokens routed to it, unless it is made to multiply all tokens.

    The experts of GraniteMoe cannot be made to do so, so a leak is found only if it exceeds the rounding.
    """
    model = decoder(dtype, model_type, num_local_experts=4)
    assert "without leaks" in verify(model)
    norm = model.layers[layer].post_attention_layernorm
    norm.register_forward_hook(lambda module, args, output: output + weight * output.roll(1, 1))
    with pytest.raises(UnsupportedModelError, match="mixes the sequences"):
        verify(model)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nondeterministic_device_passes_but_its_leaks_do_not(dtype: torch.dtype) -> None:
    model = decoder(dtype)
    unit = torch.finfo(dtype).eps / 4

    def unsteady(module: torch.nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        return output * (1 + unit * torch.randn(output.shape)).to(dtype)

    model.layers[1].mlp.down_proj.register_forward_hook(unsteady)
    assert "without leaks" in verify(model)
    model.layers[2].mlp.register_forward_hook(lambda module, args, output: output + 0.1 * args[0].roll(1, 1))
    with pytest.raises(UnsupportedModelError, match="mixes the sequences"):
        verify(model)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match=r"computes NaN or infinity.* need another dtype"):
        verify(decoder(torch.float16, std=100.0))


def test_the_checks_leave_the_model_unchanged() -> None:
    model = decoder()
    verify(model)
    with planted(changing(cu_seqlens_cpu=moved_bounds(1)), 0), suppress(UnsupportedModelError):
        verify(model)
    assert model.config._attn_implementation == attention.NAME
    assert not any(module._forward_hooks for module in model.modules())


class Rounded(torch.nn.Module):
    """A linear layer with weights and inputs rounded to 8 bits, per row or over the whole batch."""

    def __init__(self, linear: torch.nn.Linear, *, per_row: bool = True, factor: float = 1.0) -> None:
        super().__init__()
        self.weight, self.per_row = factor * self.round(linear.weight, per_row=True), per_row

    @staticmethod
    def round(values: torch.Tensor, *, per_row: bool) -> torch.Tensor:
        scale = (values.abs().amax(-1, keepdim=True) if per_row else values.abs().amax()).clamp(min=1e-9) / 127
        return ((values / scale).round() * scale).to(values.dtype)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.round(states, per_row=self.per_row) @ self.weight.T


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_that_amplifies_sound_rounding_to_8_bits_passes(dtype: torch.dtype) -> None:
    evidence = verify_quantization(
        decoder(dtype, width=128, layers=8, std=1.0), lambda model: replace_linears(model, Rounded), "int8"
    )
    assert "amplifies" in evidence
    evidence = verify_quantization(decoder(dtype), lambda model: replace_linears(model, Rounded), "int8", causal=True)
    assert evidence.startswith("int8: hidden states have a cosine of at least 0.99")
    assert "amplifies" not in evidence


@pytest.mark.parametrize("layer", [0, 7])
def test_one_broken_quantized_layer_is_found_in_a_noisy_model(layer: int) -> None:
    def quantize(model: PreTrainedModel) -> None:
        up = model.layers[layer].mlp.up_proj
        replace_linears(model, lambda linear: Rounded(linear, factor=1.3 if linear is up else 1.0))

    with pytest.raises(UnsupportedModelError, match=rf"int8 changes .*layers.{layer}.mlp.up_proj alone is off by 30%"):
        verify_quantization(decoder(width=128, layers=8, std=1.0), quantize, "int8")


@pytest.mark.parametrize("dtype", DTYPES)
def test_quantization_that_mixes_the_batch_is_found(dtype: torch.dtype) -> None:
    with pytest.raises(UnsupportedModelError, match="int8 mixes the sequences of a batch"):
        verify_quantization(
            decoder(dtype), lambda model: replace_linears(model, lambda linear: Rounded(linear, per_row=False)), "int8"
        )
