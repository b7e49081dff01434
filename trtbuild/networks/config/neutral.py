"""The fields of config.json that no logit of a decoder depends on, with the reason (transformers 5.17)."""

from __future__ import annotations

from collections.abc import Mapping


def _reasons(why: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), why)


#: Fields that no logit depends on, with the reason.
NEUTRAL: Mapping[str, str] = {
    **_reasons(
        "dropout is off when a model runs",
        "attention_dropout attn_pdrop embd_pdrop resid_pdrop hidden_dropout hidden_dropout_prob residual_dropout "
        "attention_probs_dropout_prob classifier_dropout summary_first_dropout",
    ),
    **_reasons(
        "only training reads it",
        "initializer_range initializer_factor init_std gradient_checkpointing use_cache_in_training label_smoothing "
        "router_aux_loss_coef router_z_loss_coef aux_loss_alpha seq_aux output_router_logits router_jitter_noise",
    ),
    **_reasons("a way to hold the same weights in several parts", "pretraining_tp base_model_tp_plan ep_size tp_size"),
    **_reasons("model.dtype sets the engine's; weights are read as they are stored", "dtype torch_dtype use_bfloat16"),
    **_reasons("the engine always keeps a cache", "use_cache cache_implementation is_decoder"),
    **_reasons(
        "how attention or a matrix is computed, not what",
        "attn_implementation experts_implementation use_flash_attn use_flash_attention use_flash_attention_2 "
        "chunk_size_feed_forward torchscript use_kernel use_fused_rms_norm use_fused_swiglu",
    ),
    **_reasons(
        "what transformers returns beside the logits",
        "output_hidden_states output_attentions return_dict use_return_dict",
    ),
    **_reasons(
        "the head of a classifier, which this model does not have",
        "id2label label2id num_labels problem_type finetuning_task",
    ),
    **_reasons(
        "a note on where the checkpoint comes from",
        "transformers_version name_or_path unsloth_version unsloth_fixed transformers.js_config "
        "is_llama_config model_name license language datasets task_specific_params",
    ),
    **_reasons("code that is not run; `notes` says so", "auto_map custom_pipelines"),
    **_reasons("the tokenizer's files are read instead", "tokenizer_class prefix tokenizer_model_max_length"),
    **_reasons("max_position_embeddings is the limit that is read", "max_sequence_length seq_length model_max_length"),
    **_reasons("rms_norm_eps is the one that is read", "layer_norm_eps layer_norm_epsilon norm_eps norm_epsilon"),
    **_reasons("rope_theta is the one that is read", "default_theta"),
    **_reasons("read only with a sliding window", "max_window_layers"),
    **_reasons("read only with attn_temperature_tuning", "attn_scale floor_scale"),
    **_reasons("read only with alibi", "alibi_bias_max"),
    **_reasons("tokens after the next one are not predicted", "num_nextn_predict_layers mtp_num_layers"),
    **_reasons("encoders alone", "tie_encoder_decoder cross_attention_hidden_size"),
    **_reasons(
        "read only with experts",
        "num_experts_per_tok num_experts_per_token moe_topk moe_intermediate_size norm_topk norm_topk_prob topk_method "
        "shared_expert_intermediate_size decoder_sparse_step mlp_only_layers moe_layer_freq first_k_dense_replace "
        "topk_group n_group scoring_func routed_scaling_factor mlp_layer_types",
    ),
    **_reasons(
        "how tokens are chosen from the logits",
        "assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens diversity_penalty "
        "do_sample early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff "
        "exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length "
        "max_new_tokens min_length no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule "
        "num_beam_groups num_beams num_return_sequences output_scores remove_invalid_values repetition_penalty "
        "return_dict_in_generate suppress_tokens target_lookbehind temperature top_k top_p typical_p min_p",
    ),
}
#: The same for whole groups of names.
NEUTRAL_PREFIXES: Mapping[str, str] = {"_": "what transformers notes for itself"}
NEUTRAL_SUFFIXES: Mapping[str, str] = {
    "_token_id": "names a token",
    "_token_ids": "names tokens",
    "_token_index": "names a token",
}
