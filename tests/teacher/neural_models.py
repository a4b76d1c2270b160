"""Small random models that stand in for a neural teacher in the tests."""

from __future__ import annotations

from typing import Any

import torch
import transformers

VOCAB = 40


def make_model(kind: str = "llama", vocab_size: int = VOCAB, seed: int = 0, **settings: Any) -> Any:
    """A one-layer model with random weights, its logits scaled up so that its distributions aren't flat."""
    if kind == "llama":
        own = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    else:
        own = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    config = transformers.AutoConfig.for_model(kind, vocab_size=vocab_size, **own, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            model.get_output_embeddings().weight.normal_(0, 0.7)
    return model.eval()
