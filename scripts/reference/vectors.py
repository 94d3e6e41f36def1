"""Tiny random models of every architecture, and what Hugging Face transformers computes with them.

python scripts/reference/vectors.py [ARCHITECTURE ...]

Writes test/reference/vectors/ARCHITECTURE/: config.json and model.safetensors as transformers saves them, vectors.json with
tokens and logits, and other ways in which published files write the same config as config.*.json. Weights are float32, so
that nothing but the order of sums is left to differ.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, OPTConfig, Qwen3Config

SEED = 20
N_TOKENS = 80
N_GREEDY = 20
# How far the likeliest token is ahead of the next, in deviations of the logits: rounding must not decide.
LEAST_LEAD = 0.01
# Before, at and after the edge of the window of 16, and the end.
POSITIONS = [0, 1, 7, 14, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 78, 79]
FOLDER = Path(__file__).parents[2] / "test/reference/vectors"

COMMON = {"vocab_size": 128, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}

CONFIGS = {
    "llama": LlamaConfig(
        **COMMON,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        # Of a context so short that waves of every kind (kept, in between, stretched) turn within the tokens read.
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "qwen3": Qwen3Config(
        **COMMON,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    ),
    "gemma3": Gemma3TextConfig(
        **COMMON,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=24,
        sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        # Linear scaling, as the larger Gemmas have it.
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    ),
    "opt": OPTConfig(
        **COMMON,
        hidden_size=48,
        ffn_dim=96,
        num_hidden_layers=3,
        num_attention_heads=3,
        word_embed_proj_dim=48,
        do_layer_norm_before=True,
    ),
}

# The same in other words: what is set is put in place of what transformers saves, None takes it away.
OTHER_WORDS = {
    "llama": {"old-rope": {"rope_parameters": None, "rope_theta": 10_000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}},
    "qwen3": {"old-rope": {"rope_parameters": None, "rope_theta": 1_000_000, "rope_scaling": None, "layer_types": None,
                           "use_sliding_window": False, "sliding_window": 16, "max_window_layers": 1}},
    "gemma3": {"old-rope": {"rope_parameters": None, "rope_theta": 1_000_000, "rope_local_base_freq": 10_000,
                            "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "layer_types": None,
                            "sliding_window_pattern": 3}},
}


def randomize(model):
    """Weights with which every part matters: layers add more than the embeddings are, and attention is not even."""
    random = torch.Generator().manual_seed(SEED)
    is_gemma = model.config.model_type == "gemma3_text"
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=random)
        with torch.no_grad():
            if weight.ndim == 1:
                is_scale = name.endswith("norm.weight") and not is_gemma  # which adds 1 itself
                weight.copy_(0.2 * noise + is_scale)
            elif "embed" in name:
                weight.copy_(0.25 * noise / (weight.shape[1] ** 0.5 if is_gemma else 1))
            else:
                weight.copy_(noise / weight.shape[1] ** 0.5 * (2 if "q_proj" in name or "k_proj" in name else 1))


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0]


def answer(model, tokens):
    """Tokens after each of `tokens` and after each of the greedy continuation, and the least lead of any of them."""
    tokens = list(tokens)
    while len(tokens) < N_TOKENS + N_GREEDY:
        logits = logits_of(model, tokens)
        tokens.append(int(logits[-1].argmax()))
    best = logits.topk(2).values
    return logits.argmax(-1).tolist(), ((best[:, 0] - best[:, 1]).min() / logits.std()).item()


def draw_tokens(model):
    """Tokens where the likeliest next one is clear everywhere."""
    random = torch.Generator().manual_seed(SEED)
    while True:
        tokens = torch.randint(3, model.config.vocab_size, (N_TOKENS,), generator=random).tolist()
        after, lead = answer(model, tokens)
        if lead >= LEAST_LEAD:
            return tokens, after


def digits(row):
    return [float(f"{x:.5g}") for x in row.tolist()]


def dump(path, value, **style):
    path.write_text(json.dumps(value, **style) + "\n")


def write(name):
    config = CONFIGS[name]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    randomize(model)
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)

    tokens, after = draw_tokens(model)
    logits = logits_of(model, tokens)
    vectors = {
        "tokens": tokens,
        "top": after[:N_TOKENS],
        "greedy": after[N_TOKENS - 1 :],
        "positions": POSITIONS,
        "logits": [digits(logits[i]) for i in POSITIONS],
    }
    dump(folder / "vectors.json", vectors)

    saved = json.loads((folder / "config.json").read_text())
    del saved["transformers_version"]
    dump(folder / "config.json", saved, indent=2)
    for words, changes in OTHER_WORDS.get(name, {}).items():
        other = {key: value for key, value in {**saved, **changes}.items() if value is not None}
        dump(folder / f"config.{words}.json", other, indent=2)
        reread = type(config).from_dict(other)
        again = AutoModelForCausalLM.from_pretrained(folder, config=reread, attn_implementation="eager").eval()
        assert torch.equal(logits_of(again, tokens), logits), f"{name}: config.{words}.json says something else"

    size = sum(file.stat().st_size for file in folder.iterdir()) / 1024
    print(f"{name}: {size:.0f} KiB, logits of deviation {logits.std():.2f}, greedy {vectors['greedy']}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in sys.argv[1:] or CONFIGS:
        write(name)
