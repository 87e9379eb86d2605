"""Projected attention layers: a small attention of each task's own beside every layer of a shared BERT.

Source: Stickland & Murray 2019, section 3.3. SlapBERT (section 4.7) swaps the names of V_E and V_D; what it computes is
the same. `BertModel.forward(pals=...)` calls them on each layer's input and adds them before its last LayerNorm.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from common.declare.spec import PalSpec
from common.model.bert import BertConfig, BertSelfAttention

# Standard deviation of random weights, as BERT's own (Devlin et al. 2019) and as in the released code of the PALs.
START_STD = 0.02


class ProjectedAttentionLayers(nn.Module):
    """One task's layers: PAL_l(h) = GELU(V_D SA_l(V_E h)), with GELU as the released code, not the paper, has it.

    V_E (`down`, H to size) and V_D (`up`, size to H) serve all layers; only query, key and value (size to size) are a
    layer's own, and no matrix follows the attention. With L layers that is 2 H size + 3 L size^2 weights a task, the
    paper's count (1.81 million for BERT-base at 204), and H + size + 3 L size biases that the paper leaves out and the
    released code has. We differ from that code in the heads: it fixes 6, SlapBERT (section 5.3) says 12, a field here.

    Args:
        config: the encoder's sizes; its attention dropout is used here too.
        spec: size, heads, GELU and start.
        generator: of the random start.
    """

    def __init__(self, config: BertConfig, spec: PalSpec, generator: torch.Generator):
        super().__init__()
        small = replace(config, hidden_size=spec.size, num_attention_heads=spec.heads)
        self.down = nn.Linear(config.hidden_size, spec.size)
        self.layer = nn.ModuleList(BertSelfAttention(small) for _ in range(config.num_hidden_layers))
        self.up = nn.Linear(spec.size, config.hidden_size)
        self.activation = nn.GELU() if spec.gelu else nn.Identity()
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or (name == "up.weight" and spec.start == "zero"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=START_STD, generator=generator)

    def forward(self, index: int, hidden: Tensor, mask_bias: Tensor) -> Tensor:
        """What layer `index` adds, (B, T, H), from its input (B, T, H) and the mask as a bias (B, 1, 1, T)."""
        context, _ = self.layer[index](self.down(hidden), mask_bias)  # (B, T, size)
        return self.activation(self.up(context))  # (B, T, H)
