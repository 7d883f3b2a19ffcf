"""Sizes of small models: fields of configurations by name, and what a model type needs besides."""

from __future__ import annotations

LABELS = 3
WIDTH = 32
LAYERS = 2
HEADS = 4
VOCABULARY = 120
IMAGE = 32
FRAMES = 64
EOS = VOCABULARY - 1
PAD = 1

# A field is set where the class of the configuration has it.
SIZES: dict[str, object] = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "n_embd", "emb_dim", "embedding_size"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers", "depth"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads",), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "attention_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_ff", "d_inner"), 2 * WIDTH),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "feed_forward_size"), 2 * WIDTH),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), WIDTH),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("index_head_dim", "linear_key_head_dim", "linear_value_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("index_n_heads", "linear_num_key_heads", "linear_num_value_heads"), 2),
    "index_topk": 8,
    **dict.fromkeys(("mamba_dt_rank", "adapter_rank"), 4),
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "image_size": IMAGE,
    "patch_size": 8,
    "eos_token_id": EOS,
    "projection_dim": WIDTH,
    "vision_use_head": False,
}
SPEECH = {
    "conv_dim": (WIDTH, WIDTH),
    "conv_kernel": (10, 8),
    "conv_stride": (5, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": WIDTH,
}
_LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1}
_SWIN = {"patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "num_layers": 2}
_STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1]}
_CONVOLUTIONS = {"embedding_size": 16, **_STAGES, "out_features": ["stage2"], "out_indices": [2]}
_PYRAMID = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "hidden_sizes": [16, 32],
    "patch_sizes": [4, 2],
    "strides": [4, 2],
    "num_attention_heads": [2, 4],
    "mlp_ratios": [2, 2],
}
_PERCEIVER = {
    **{"num_latents": 8, "d_latents": WIDTH, "num_self_attends_per_block": 1},
    **{"num_self_attention_heads": HEADS, "num_cross_attention_heads": HEADS},
}
_REDUCED = {**_PYRAMID, "sr_ratios": [2, 1]}

OVERRIDES: dict[str, dict[str, object]] = {
    "audio/audio-spectrogram-transformer": {"max_length": FRAMES, "num_mel_bins": 32},
    "audio/whisper": {"num_mel_bins": 32, "max_source_positions": FRAMES // 2},
    "audio/wav2vec2-bert": {"feature_projection_input_dim": WIDTH, "output_hidden_size": WIDTH},
    "text/axk1": {"mlp_layer_types": ["dense", "sparse"]},
    "text/axk2": {"mlp_layer_types": ["dense", "sparse"], "layer_types": ["indexed_attention"] * 2},
    "text/cohere_compass_text": {
        "layer_types": ["full_attention"] * 2,
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}},
    },
    "text/esmc": {"num_key_value_heads": HEADS},
    "text/funnel": {"block_sizes": [1, 1], "block_repeats": [1, 1], "num_decoder_layers": 1},
    "text/gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "text/gptj": {"rotary_dim": 4},
    "text/jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "text/layoutlmv3": {"coordinate_size": 5, "shape_size": 6, "input_size": IMAGE},
    "text/lilt": {"channel_shrink_ratio": 2, "hidden_size": 48},
    "text/luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "text/mistral4": {"head_dim": 16},
    "text/mobilebert": {"true_hidden_size": WIDTH, "intra_bottleneck_size": WIDTH},
    "text/perceiver": _PERCEIVER,
    "text/qwen3_5_text": _LINEAR,
    "text/qwen3_5": _LINEAR,
    "text/qwen3_next": _LINEAR,
    "text/reformer": {
        "attn_layers": ["local", "lsh"],
        **{"attention_head_size": 8, "num_buckets": 4, "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8},
        **{"is_decoder": False, "hash_seed": 0, "axial_pos_embds": False},
    },
    "text/roc_bert": {
        **{"pronunciation_embed_dim": 8, "pronunciation_vocab_size": VOCABULARY},
        **{"shape_embed_dim": 8, "shape_vocab_size": VOCABULARY},
    },
    "text/t5": {"decoder_start_token_id": 0},
    "text/xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "text/zamba": {
        **{"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
        **{"attention_hidden_size": 2 * WIDTH, "attention_head_dim": 16, "use_mamba_kernels": False},
    },
    "text/zamba2": {"layers_block_type": ["linear_attention", "hybrid"]},
    **{
        f"causal/{kind}": _LINEAR
        for kind in (
            *("bailing_hybrid", "kimi_linear", "lfm3", "qwen3_5_moe", "qwen3_5_moe_text"),
            *("qwen4_exp", "qwen4_exp_text"),
        )
    },
    "causal/bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "causal/codegen": {"rotary_dim": 4},
    "causal/granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention"]},
    "causal/mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "causal/recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": WIDTH},
    "causal/zaya": {"num_experts_per_tok": 1},
    "image/bit": {**_CONVOLUTIONS, "num_groups": 4},
    "image/convnext": {"patch_size": 4, "num_stages": 2, **_STAGES},
    "image/convnextv2": {"patch_size": 4, "num_stages": 2, **_STAGES},
    "image/cvt": {"embed_dim": [16, 24, 32], "depth": [1, 2, 3], "num_heads": [1, 2, 4], "drop_path_rate": [0.0] * 3},
    "image/dinat": {**_SWIN},
    "image/donut-swin": _SWIN,
    "image/efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320},
    "image/focalnet": {
        **{"patch_size": 4, "embed_dim": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
        **{"focal_levels": [2, 2], "focal_windows": [3, 3], "out_features": ["stage2"], "out_indices": [2]},
    },
    "image/hgnet_v2": {
        **_CONVOLUTIONS,
        **{"stem_channels": [3, 8, 16], "stage_in_channels": [16, 16], "stage_mid_channels": [8, 8]},
        **{"stage_out_channels": [16, 32], "stage_num_blocks": [1, 1], "stage_downsample": [False, True]},
        **{"stage_downsample_strides": [2, 2], "stage_light_block": [False, True], "stage_kernel_size": [3, 3]},
        "stage_numb_of_layers": [1, 1],
    },
    "image/hiera": {
        **{"image_size": [IMAGE, IMAGE], "patch_size": [7, 7], "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]},
        **{"masked_unit_size": [2, 2], "masked_unit_attention": [True, False], "num_query_pool": 1},
        **{"out_features": ["stage2"], "out_indices": [2]},
    },
    "image/imagegpt": {"vocab_size": 65, "n_positions": 64},
    "image/levit": {
        **{"hidden_sizes": [16, 24, 32], "num_attention_heads": [1, 2, 2], "key_dim": [8, 8, 8], "depths": [1, 1, 1]},
        **{"patch_size": 16, "image_size": 64},
    },
    "image/mobilevitv2": {"patch_size": 2, "image_size": 64},
    "image/perceiver": _PERCEIVER,
    "image/poolformer": {
        **_STAGES,
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "padding": [2, 1],
        "num_encoder_blocks": 2,
    },
    "image/pvt": {**_PYRAMID, "sequence_reduction_ratios": [2, 1]},
    "image/pvt_v2": {**_REDUCED, "patch_sizes": [7, 3], "out_features": ["stage2"], "out_indices": [1]},
    "image/regnet": {"embedding_size": 16, **_STAGES, "groups_width": 8},
    "image/resnet": _CONVOLUTIONS,
    "image/segformer": _REDUCED,
    "image/swin": _SWIN,
    "image/swinv2": {**_SWIN, "pretrained_window_sizes": [0, 0]},
    "image/textnet": {"stem_out_channels": 16, "hidden_sizes": [16, 16, 16, 32, 32], "image_size": [IMAGE, IMAGE]},
}

# Registered with an Auto class, but nothing that a Trainer could train.
NO_CLASSIFIERS = {
    "image/pp_lcnet": "its forward takes no labels and returns neither logits nor a loss",
    "image/shieldgemma2": "it reads an image together with a text and computes no loss",
}
