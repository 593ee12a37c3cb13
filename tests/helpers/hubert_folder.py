"""A small HuBERT with random weights, in the folder that Hugging Face ships for the large one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from models.audio.hubert import build_hubert

WIDTH = 32
CONFIG = {
    "_name_or_path": "facebook/hubert-large-ls960-ft",
    "architectures": ["HubertForCTC"],
    "model_type": "hubert",
    "transformers_version": "4.10.0.dev0",
    "gradient_checkpointing": False,  # as in old files; today's library does not know it
    "mask_channel_selection": "static",
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 6,
}
PREPROCESSOR = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0,
    "return_attention_mask": True,
    "sampling_rate": 16000,
}


def random_network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_hubert(CONFIG)


def official_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The network's tensors under the names of the published recogniser, with its head."""
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {}
    for key, value in network.state_dict().items():
        for new_name, old_name in old.items():
            key = key.replace(new_name, old_name)
        state[f"hubert.{key}"] = value
    head = {"lm_head.weight": torch.zeros(CONFIG["vocab_size"], WIDTH), "lm_head.bias": torch.zeros(6)}
    return state | head


def write_hubert_folder(folder: Path, seed: int = 0) -> Path:
    """config.json, preprocessor_config.json and pytorch_model.bin."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    torch.save(official_state(random_network(seed)), folder / "pytorch_model.bin")
    return folder
