"""The network of Baichuan models for vLLM: a Llama's, with another attention and output layer.

Query, key and value weights are stored as one matrix (`W_pack`). The 13B models have biases by
distance (ALiBi) instead of rotary positions. The rows of Baichuan 2's output layer have length 1.

Letters: N tokens of all sequences in a step, D width.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
)
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaForCausalLM, LlamaModel
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper

from ampere.text.baichuan.alibi import check_backend, slopes
from ampere.text.baichuan.config import BaichuanConfig

OUTPUT_LAYER = "lm_head.weight"


class BaichuanAttention(nn.Module):
    """Attention with the positions that the config names.

    Its arguments are those that `LlamaDecoderLayer` passes.
    """

    def __init__(
        self,
        config: BaichuanConfig,
        hidden_size: int,
        num_heads: int,
        quant_config: QuantizationConfig | None = None,
        cache_config: Any = None,
        prefix: str = "",
        **_: Any,
    ) -> None:
        super().__init__()
        head_size = hidden_size // num_heads
        self.qkv_proj = QKVParallelLinear(
            hidden_size,
            head_size,
            num_heads,
            bias=False,
            quant_config=quant_config,
            prefix=f"{prefix}.qkv_proj",
        )
        self.o_proj = RowParallelLinear(
            hidden_size,
            hidden_size,
            bias=False,
            quant_config=quant_config,
            prefix=f"{prefix}.o_proj",
        )
        self.rotary_emb = None
        if not config.alibi:
            self.rotary_emb = get_rope(
                head_size,
                max_position=config.max_position_embeddings,
                rope_parameters=config.rope_parameters,
            )
        local_heads = num_heads // get_tensor_model_parallel_world_size()
        first = get_tensor_model_parallel_rank() * local_heads
        self.attn = Attention(
            local_heads,
            head_size,
            head_size**-0.5,
            alibi_slopes=slopes(num_heads)[first : first + local_heads] if config.alibi else None,
            cache_config=cache_config,
            quant_config=quant_config,
            prefix=f"{prefix}.attn",
        )
        if config.alibi:
            check_backend(self.attn.attn_backend.get_name())

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """Attend.

        Args:
            positions: int64 [N], of each token in its sequence.
            hidden_states: [N, D].

        Returns:
            [N, D].
        """
        q, k, v = self.qkv_proj(hidden_states)[0].chunk(3, dim=-1)
        if self.rotary_emb is not None:
            q, k = self.rotary_emb(positions, q, k)
        return self.o_proj(self.attn(q, k, v))[0]


def baichuan_layer(vllm_config: VllmConfig, prefix: str) -> LlamaDecoderLayer:
    """A Llama's layer with Baichuan's attention."""
    return LlamaDecoderLayer(vllm_config, prefix, attn_layer_type=BaichuanAttention)


class BaichuanModel(LlamaModel):
    """The layers between the embeddings of tokens and the output layer."""

    hf_to_vllm_mapper = LlamaModel.hf_to_vllm_mapper | WeightsMapper(
        orig_to_new_substr={".W_pack.": ".qkv_proj."}
    )


class BaichuanForCausalLM(LlamaForCausalLM):
    """The whole network."""

    hf_to_vllm_mapper = BaichuanModel.hf_to_vllm_mapper
    # The loader of bitsandbytes reads here what is one matrix here and several on disk.
    packed_modules_mapping = {
        "qkv_proj": ["qkv_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=baichuan_layer)

    def _init_model(self, vllm_config: VllmConfig, prefix: str = "", **options: Any) -> LlamaModel:
        return BaichuanModel(vllm_config=vllm_config, prefix=prefix, **options)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load weights under the names that Baichuan's own files have."""
        if self.config.normalized_head:
            weights = (
                (name, nn.functional.normalize(weight) if name == OUTPUT_LAYER else weight)
                for name, weight in weights
            )
        return AutoWeightsLoader(self).load_weights(weights)
